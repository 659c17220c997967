# bash completion for vmctl(8), written by etc/completion/write.py

_vmctl()
{
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}
	local verb="" options="" values="" guests=no word skip=no
	COMPREPLY=()
	for word in "${COMP_WORDS[@]:1:COMP_CWORD - 1}"; do
		case $skip$word in
		yes*) skip=no ;;
		no--socket) skip=yes ;;
		no-*) ;;
		*) verb=$word; break ;;
		esac
	done
	case $prev in
	--config|--expect|--image|--iso|--socket|--ssh-key|--textfile|--user-data|-c) COMPREPLY=($(compgen -f -- "$cur")); return ;;
	esac
	case $verb in
	"") COMPREPLY=($(compgen -W "list status show start stop restart reset poweroff nmi suspend resume hold release snapshot rollback console log why history events top web metrics plan check doctor create import reload drain" -- "$cur")); return ;;
	list) options="-q --quiet --json --socket -h --help" values="--socket" guests=yes ;;
	status) options="--json --socket -h --help" values="--socket" guests=yes ;;
	show) options="--json --socket -h --help" values="--socket" guests=yes ;;
	start) options="--install --cold -r --ready --wait --no-wait -t --timeout -a --all --json --socket -h --help" values="-t --timeout --socket" guests=yes ;;
	stop) options="-f --force -g --grace --wait --no-wait -t --timeout -a --all --json --socket -h --help" values="-g --grace -t --timeout --socket" guests=yes ;;
	restart) options="-r --ready --wait --no-wait -t --timeout -a --all --json --socket -h --help" values="-t --timeout --socket" guests=yes ;;
	reset) options="--wait -t --timeout -a --all --json --socket -h --help" values="-t --timeout --socket" guests=yes ;;
	poweroff) options="--wait -t --timeout -a --all --json --socket -h --help" values="-t --timeout --socket" guests=yes ;;
	nmi) options="-a --all --json --socket -h --help" values="--socket" guests=yes ;;
	suspend) options="--wait --no-wait -t --timeout -a --all --json --socket -h --help" values="-t --timeout --socket" guests=yes ;;
	resume) options="-r --ready --wait --no-wait -t --timeout -a --all --json --socket -h --help" values="-t --timeout --socket" guests=yes ;;
	hold) options="--reason --for -a --all --json --socket -h --help" values="--reason --for --socket" guests=yes ;;
	release) options="-a --all --json --socket -h --help" values="--socket" guests=yes ;;
	snapshot) options="--name -l --list --delete -a --all --json --socket -h --help" values="--name --delete --socket" guests=yes ;;
	rollback) options="--destroy-newer --json --socket -h --help" values="--socket" guests=yes ;;
	console) options="-p --port --read-only --steal --since -e --escape --send --wait-for --expect -t --timeout --conserver-cf --json --socket -h --help" values="-p --port --since -e --escape --send --wait-for --expect -t --timeout --socket" guests=yes ;;
	log) options="-p --port -f --follow -n --lines -b --boot -s --since -g --grep --timestamps --raw -a --all --json --socket -h --help" values="-p --port -n --lines -b --boot -s --since -g --grep --socket" guests=yes ;;
	why) options="-n --runs --json --socket -h --help" values="-n --runs --socket" guests=yes ;;
	history) options="-n --last --json --socket -h --help" values="-n --last --socket" guests=yes ;;
	events) options="-f --follow -n --last -s --since --vm --json --socket -h --help" values="-n --last -s --since --vm --socket" guests=yes ;;
	top) options="-d --interval -n --count -s --sort --plain --json --socket -h --help" values="-d --interval -n --count -s --sort --socket" guests=yes ;;
	web) options="--json --socket -h --help" values="--socket" guests=no ;;
	metrics) options="--textfile --json --socket -h --help" values="--textfile --socket" guests=no ;;
	plan) options="--install --release --arch --boot --shutdown -c --config --json --socket -h --help" values="--release --arch -c --config --socket" guests=yes ;;
	check) options="-c --config --json --socket -h --help" values="-c --config --socket" guests=no ;;
	doctor) options="-c --config --json --socket -h --help" values="-c --config --socket" guests=no ;;
	create) options="-T --template -d --disk --image --disk-model -b --bridge --card -m --memory --cpus --iso --user --ssh-key --user-data -c --config --json --socket -h --help" values="-T --template -d --disk --image --disk-model -b --bridge --card -m --memory --cpus --iso --user --ssh-key --user-data -c --config --socket" guests=yes ;;
	import) options="-n --dry-run --name --guest -b --bridge --dataset -c --config --json --socket -h --help" values="--name --guest -b --bridge --dataset -c --config --socket" guests=files ;;
	reload) options="--plan --prune --json --socket -h --help" values="--socket" guests=no ;;
	drain) options="--off --reason --for --wait -t --timeout --json --socket -h --help" values="--reason --for -t --timeout --socket" guests=no ;;
	esac
	case "$verb $prev" in
	"top -s") COMPREPLY=($(compgen -W "cpu memory network console restarts uptime phase name" -- "$cur")); return ;;
	"top --sort") COMPREPLY=($(compgen -W "cpu memory network console restarts uptime phase name" -- "$cur")); return ;;
	"plan --release") COMPREPLY=($(compgen -W "14 15 main" -- "$cur")); return ;;
	"plan --arch") COMPREPLY=($(compgen -W "amd64 arm64" -- "$cur")); return ;;
	esac
	case " $values " in
	*" $prev "*) return ;;
	esac
	case $cur in
	-*) COMPREPLY=($(compgen -W "$options" -- "$cur")) ;;
	*) [ $guests != files ] || { COMPREPLY=($(compgen -f -- "$cur")); return; }
		[ $guests = no ] || COMPREPLY=($(compgen -W "$(vmctl list -q 2>/dev/null)" -- "$cur")) ;;
	esac
}

complete -F _vmctl vmctl
