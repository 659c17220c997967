"""The table of vmctl's verbs. Parsing, help, shell completion and the test of the man page all draw from it.

To add a verb: a `Verb` here, its function in a module of `bhyved.ctl`, its section in vmctl(8), and `python etc/completion/write.py`.
Nothing is imported until it runs.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    Kind = Literal["flag", "text", "count", "number", "seconds"]
    Guests = Literal["none", "any", "some", "some-or-all", "one", "one-and-snapshot", "file"]


class Option:
    """One option. `value` names what follows it; flags have none. `constant` is what a flag sets, and `choices` what is allowed."""

    __slots__ = ("choices", "constant", "help", "key", "kind", "spellings", "value")

    def __init__(
        self,
        spellings: str,
        help: str,
        *,
        value: str = "",
        kind: Kind = "flag",
        choices: tuple[str, ...] = (),
        key: str = "",
        constant: bool = True,
    ) -> None:
        self.spellings = tuple(spellings.split())
        self.help, self.value, self.kind, self.choices, self.constant = help, value, kind, choices, constant
        self.key = key or self.spellings[-1].lstrip("-")


_USAGE: dict[Guests, str] = {
    "none": "",
    "any": "[NAME ...]",
    "some": "NAME ...",
    "some-or-all": "NAME ... | --all",
    "one": "NAME",
    "one-and-snapshot": "NAME SNAPSHOT",
    "file": "FILE",
}


class Verb:
    """One verb. `run` is MODULE:FUNCTION below `bhyved.ctl`, which takes `Asked` and returns the exit status.

    `usage`: what stands behind the options, where `guests` does not say all of it.
    """

    __slots__ = ("about", "examples", "guests", "name", "options", "run", "summary", "usage")

    def __init__(
        self,
        name: str,
        run: str,
        summary: str,
        *,
        guests: Guests = "none",
        usage: str = "",
        options: tuple[Option, ...] = (),
        about: str = "",
        examples: tuple[tuple[str, str], ...] = (),
    ) -> None:
        self.name, self.run, self.summary, self.guests = name, run, summary, guests
        self.usage = usage or _USAGE[guests]
        self.options, self.about, self.examples = (*options, *COMMON), about, examples


COMMON = (
    Option("--json", "print JSON, for programs"),
    Option("--socket", "bhyved's control socket; default BHYVED_SOCKET, or /var/run/bhyved/control.sock", value="PATH", kind="text"),
    Option("-h --help", "print this text"),
)

ALL = Option("-a --all", "every guest that you may do this to")
TIMEOUT = Option("-t --timeout", "wait at most so long, then exit 75", value="DURATION", kind="seconds")
NO_WAIT = Option("--no-wait", "return as soon as bhyved has accepted", key="wait", constant=False)
WAITS = (Option("--wait", "wait until it is done (default)", key="wait"), NO_WAIT, TIMEOUT)
MAY_WAIT = (Option("--wait", "wait until it is done", key="wait"), TIMEOUT)
READY = Option("-r --ready", "wait until the guest is ready too, see order.ready")
REASON = Option("--reason", "why, for whoever looks", value="TEXT", kind="text")
FOR = Option("--for", "how long; without it, until it is taken back", value="DURATION", kind="seconds")
CONFIG = Option("-c --config", "read these files instead of asking the daemon", value="FILE", kind="text")
PORT = Option("-p --port", "which console: com1 to com4, or a virtio-console port; default: the first", value="PORT", kind="text")

SORTS = ("cpu", "memory", "network", "console", "restarts", "uptime", "phase", "name")

VERBS = (
    Verb(
        "list",
        "listing:show_list",
        "list guests",
        guests="any",
        options=(Option("-q --quiet", "print names only"),),
        about="What is not as it should be stands in the last column. Without names, all that you may see.",
        examples=(("vmctl list", "every guest, a line each"), ("vmctl list --json | jq '.vms[].pid'", "for a program")),
    ),
    Verb(
        "status",
        "status:show_status",
        "show the state of guests, or of the daemon",
        guests="any",
        about="With names, a block for each guest. Without, what the daemon itself does, and how much of the host's memory guests have.",
        examples=(("vmctl status web1", ""), ("vmctl status", "is bhyved there, and who am I to it?")),
    ),
    Verb(
        "show",
        "status:show_all",
        "show the configuration of guests, and what waits for a restart",
        guests="some",
        about="All keys with templates and defaults applied, consoles, and keys whose new value waits for another run.",
        examples=(("vmctl show web1", ""),),
    ),
    Verb(
        "start",
        "wishes:start",
        "start guests",
        guests="some-or-all",
        options=(
            Option("--install", "attach the install media, until the guest first ends"),
            Option("--cold", "boot a suspended guest, and throw its saved state away"),
            READY,
            *WAITS,
            ALL,
        ),
        about=(
            "Starting a guest that is up succeeds. A start by hand forgets what counted against restart limits. A suspended guest "
            "goes on where it was."
        ),
        examples=(
            ("vmctl start web1 db1", "two guests, and wait until both are up"),
            ("vmctl start --install web1", "the first time, from its install media"),
            ("vmctl start --all --no-wait", ""),
        ),
    ),
    Verb(
        "stop",
        "wishes:stop",
        "shut guests down",
        guests="some-or-all",
        options=(
            Option("-f --force", "cut the power at once"),
            Option("-g --grace", "time until the power is cut, in place of stop.timeout", value="DURATION", kind="seconds"),
            *WAITS,
            ALL,
        ),
        about=(
            "The guest's power button is pressed. If it is not down by the end of its grace, its power is cut. It stays down until it "
            "is started."
        ),
        examples=(("vmctl stop web1", ""), ("vmctl stop --grace 5m db1", "a database with much to write")),
    ),
    Verb(
        "restart",
        "wishes:restart",
        "stop guests and start them again",
        guests="some-or-all",
        options=(READY, *WAITS, ALL),
        about="As stop and start: a new configuration is in force afterwards.",
        examples=(("vmctl restart web1", ""),),
    ),
    Verb(
        "reset",
        "wishes:reset",
        "press the reset button of guests",
        guests="some-or-all",
        options=(*MAY_WAIT, ALL),
        about="The guest is given no time to write anything.",
        examples=(("vmctl reset web1", ""),),
    ),
    Verb(
        "poweroff",
        "wishes:poweroff",
        "cut the power of guests",
        guests="some-or-all",
        options=(*MAY_WAIT, ALL),
        about="The guest is given no time to write anything. It stays down until it is started.",
        examples=(("vmctl poweroff web1", ""),),
    ),
    Verb(
        "nmi",
        "wishes:nmi",
        "send guests a non-maskable interrupt",
        guests="some-or-all",
        options=(ALL,),
        about="Most systems enter their debugger or panic, and so tell why they hang.",
        examples=(("vmctl nmi web1", ""),),
    ),
    Verb(
        "suspend",
        "wishes:suspend",
        "write the state of guests to disk, and end their runs",
        guests="some-or-all",
        options=(*WAITS, ALL),
        about=(
            "Needs a bhyve that was built with snapshots, which no release is, and devices that it can save. The guest stays suspended, "
            "also over a reboot of the host, until it is resumed or started. When it cannot be suspended, it goes on."
        ),
        examples=(("vmctl suspend db1", "before the host gets more memory, say"),),
    ),
    Verb(
        "resume",
        "wishes:resume",
        "let suspended guests go on where they were",
        guests="some-or-all",
        options=(READY, *WAITS, ALL),
        about=(
            "As start, for guests that are suspended. A state is resumed once, on the devices and disks that it was saved with; "
            "start --cold throws it away."
        ),
        examples=(("vmctl resume db1", ""),),
    ),
    Verb(
        "hold",
        "wishes:hold",
        "put guests on hold: nothing starts them by itself",
        guests="some-or-all",
        options=(REASON, FOR, ALL),
        about="A guest that runs goes on; when it ends, it stays down, also over a boot of the host. Starts and stops by hand still work.",
        examples=(("vmctl hold web1 --reason 'disk check' --for 2h", ""),),
    ),
    Verb(
        "release",
        "wishes:release",
        "take guests off hold",
        guests="some-or-all",
        about="Those that the hold has kept down start, and so do those that are held.",
        options=(ALL,),
        examples=(("vmctl release web1", ""),),
    ),
    Verb(
        "snapshot",
        "snapshots:snapshot",
        "take, list or destroy ZFS snapshots of guests' disks",
        guests="some-or-all",
        options=(
            Option("--name", "what it is called; default: bhyved- and the time, UTC", value="SNAPSHOT", kind="text"),
            Option("-l --list", "list the snapshots of the guests' disks, whoever took them"),
            Option("--delete", "destroy this one; one that bhyved did not take, as DATASET@NAME", value="SNAPSHOT", kind="text"),
            ALL,
        ),
        about=(
            "All disks of a guest are taken at one moment, and the guest runs on. The snapshot says what it is: clean, of a guest that had "
            "shut itself down; frozen, where its guest agent held its file systems still; crash-consistent, as after a power cut; "
            "per-pool, where a running guest has disks in several pools, which are taken one after the other. Disks that the guest only "
            "reads are left out. vmctl rollback goes back to one."
        ),
        examples=(
            ("vmctl snapshot web1 --name before-upgrade", ""),
            ("vmctl snapshot --all", "from cron(8)"),
            ("vmctl snapshot web1 --list", ""),
            ("vmctl snapshot web1 --delete before-upgrade", ""),
        ),
    ),
    Verb(
        "rollback",
        "snapshots:rollback",
        "put the disks of a guest back to a snapshot",
        guests="one-and-snapshot",
        options=(Option("--destroy-newer", "even if that destroys newer snapshots of these disks, whoever took them"),),
        about=(
            "What has been written since is lost. The guest must be down. All disks go back, or none; meanwhile nothing starts the guest. "
            "Its configuration stays as it is: what was different then is told."
        ),
        examples=(("vmctl rollback web1 before-upgrade", ""),),
    ),
    Verb(
        "console",
        "console:console",
        "use the console of a guest",
        guests="any",
        usage="NAME | --conserver-cf [NAME ...]",
        options=(
            PORT,
            Option("--read-only", "watch, and do not type"),
            Option("--steal", "take the keyboard from whoever has it"),
            Option("--since", "begin there: boot, all, end (default), an offset, or -20 for 20 lines back", value="PLACE", kind="text"),
            Option("-e --escape", "the escape character, ^X for a control character, or none; default ~", value="CHAR", kind="text"),
            Option("--send", r"type TEXT; \r \n \t \e \\ and \xHH are understood", value="TEXT", kind="text"),
            Option("--wait-for", "wait until the guest prints what this regular expression matches", value="REGEX", kind="text"),
            Option("--expect", "do the steps of FILE, or - for standard input", value="FILE", kind="text"),
            Option("-t --timeout", "for --wait-for and --expect; default 60s", value="DURATION", kind="seconds"),
            Option("--conserver-cf", "print a conserver configuration for every console with socket = true"),
        ),
        about=(
            "As cu(1): after Return, ~. leaves, ~? helps, ~w takes the keyboard, ~^Z suspends, ~~ sends ~. The guest runs on and is "
            "recorded whether or not anybody looks. When bhyved is restarted, the console goes on where it was.\n"
            "With --send, --wait-for or --expect, nothing is read from the terminal. A file for --expect has a step a line: "
            "send TEXT, or wait [DURATION] REGEX; lines that begin with # are left out. --wait-for looks at what was printed since the "
            "guest started, or after what --send has sent, unless --since says otherwise."
        ),
        examples=(
            ("vmctl console web1", ""),
            ("vmctl console web1 --since -50", "with the last 50 lines"),
            ("vmctl console web1 --wait-for 'login:' -t 2m", "0 when it is printed, 75 when not"),
            (r"vmctl console web1 --send 'root\r' --wait-for '# $'", ""),
        ),
    ),
    Verb(
        "log",
        "log:show_log",
        "print what consoles have recorded",
        guests="some-or-all",
        options=(
            PORT,
            Option("-f --follow", "go on with what is printed from now on"),
            Option("-n --lines", "the last N lines; with -f, the default is 10", value="N", kind="count"),
            Option("-b --boot", "one run: 0 the present or last, -1 the one before", value="N", kind="number"),
            Option("-s --since", "from a time on: a duration back (10m), or a time of day in UTC", value="WHEN", kind="text"),
            Option("-g --grep", "only lines that this regular expression matches", value="REGEX", kind="text"),
            Option("--timestamps", "put the time (UTC) before each line"),
            Option("--raw", "the guest's bytes as they are, escape sequences and all"),
            ALL,
        ),
        about="Of several guests, each line begins with its guest's name. Escape sequences are taken out.",
        examples=(
            ("vmctl log web1 -b -1 -n 40", "the last words of the run before this one"),
            ("vmctl log web1 --since 10m --grep '(?i)panic'", ""),
            ("vmctl log -f --all", "every console of this host"),
        ),
    ),
    Verb(
        "why",
        "story:why",
        "explain the state of guests",
        guests="some",
        options=(Option("-n --runs", "show so many of the newest runs; default 3", value="N", kind="count"),),
        examples=(("vmctl why web1", ""),),
    ),
    Verb(
        "history",
        "story:history",
        "list the runs of guests",
        guests="some",
        options=(Option("-n --last", "the newest N; default 20", value="N", kind="count"),),
        about="Who started each run, how long it ran, how it ended, and what bhyved made of it.",
        examples=(("vmctl history web1 -n 5", ""),),
    ),
    Verb(
        "events",
        "events:show_events",
        "print what has happened, and happens",
        guests="any",
        options=(
            Option("-f --follow", "go on with what happens from now on"),
            Option("-n --last", "the newest N; default 50, with -f 10", value="N", kind="count"),
            Option(
                "-s --since", "from there on: an event's number, a duration back (10m), or a time of day in UTC", value="WHEN", kind="text"
            ),
            Option("--vm", "of this guest only; the same as its name behind the options", value="NAME", kind="text"),
        ),
        examples=(("vmctl events -f web1", ""), ("vmctl events --since 1h --json", "one object a line")),
    ),
    Verb(
        "top",
        "top:top",
        "show what guests use, live",
        guests="any",
        options=(
            Option("-d --interval", "between two looks; default 2s", value="DURATION", kind="seconds"),
            Option("-n --count", "look so many times, and then end", value="N", kind="count"),
            Option("-s --sort", f"by {', '.join(SORTS)}; default cpu", value="KEY", kind="text", choices=SORTS),
            Option("--plain", "no full screen: the table again and again"),
        ),
        about=(
            "CPU is that of the guest's bhyve, in hundredths of one processor; network and console are bytes a second, in and out "
            "together. On the full screen, q quits, s sorts by the next column, / shows only guests with these words in name, phase "
            "or reason, and the arrow keys scroll. Where output is no terminal, or with -n, it prints tables."
        ),
        examples=(("vmctl top", ""), ("vmctl top --sort memory -n 2", "the second table has rates")),
    ),
    Verb(
        "web",
        "web:link",
        "print a link to the status page",
        about=(
            "It opens the page in a browser, once and within two minutes; that browser may come back for twelve hours. Whoever has "
            "the link may look at every guest and its console. From another machine, bring the port over first: "
            "ssh -L 9747:127.0.0.1:9747 HOST."
        ),
        examples=(("vmctl web", ""),),
    ),
    Verb(
        "metrics",
        "web:metrics",
        "print the metrics that Prometheus would be told",
        options=(Option("--textfile", "into FILE, at once, for node_exporter's textfile collector", value="FILE", kind="text"),),
        about="Also where bhyved serves no HTTP.",
        examples=(("vmctl metrics --textfile /var/tmp/node_exporter/bhyved.prom", "from cron(8)"),),
    ),
    Verb(
        "plan",
        "files:plan",
        "show what a start would do",
        guests="any",
        usage="NAME ... | --boot | --shutdown",
        options=(
            Option("--install", "with the install media attached"),
            Option(
                "--release", "for this FreeBSD: 14, 15 or main; default: the host's", value="R", kind="text", choices=("14", "15", "main")
            ),
            Option("--arch", "for this architecture; default: the host's", value="A", kind="text", choices=("amd64", "arm64")),
            Option("--boot", "the boot of the host instead: who starts when"),
            Option("--shutdown", "the shutdown of the host instead: who stops when, and whether the time suffices"),
            CONFIG,
        ),
        about=(
            "Host commands, the loader's command, the bhyve_config(5) file, and the same as a command line. Nothing is touched, and no "
            "secret is shown. Works without a daemon too. The words boot and shutdown, alone, mean the host, as the options do."
        ),
        examples=(
            ("vmctl plan web1", ""),
            ("vmctl plan web1 --release 14", "would the other host take it?"),
            ("vmctl plan shutdown", ""),
        ),
    ),
    Verb(
        "check",
        "files:check",
        "check the configuration files",
        options=(CONFIG,),
        about="Every problem of every file, a line each; exits 78 if there is one. Works without a daemon too.",
        examples=(("vmctl check", ""), ("vmctl check -c ./bhyved.toml", "before the files are put in place")),
    ),
    Verb(
        "doctor",
        "doctor:doctor",
        "look over the host: what will go wrong, and how to mend it",
        options=(CONFIG,),
        about="Looks at modules, firmware, disks, bridges, taps, VNC ports, memory, the time at shutdown, and in a jail at what it lacks. "
        "Changes nothing, needs no daemon; exits 1 if something fails.",
        examples=(("vmctl doctor", ""), ("vmctl doctor --json | jq '.checks[] | select(.level != \"ok\")'", "")),
    ),
    Verb(
        "create",
        "create:create",
        "write the file of a new guest, and make its disk",
        guests="one",
        options=(
            Option("-T --template", "templates, joined by commas; later ones win", value="NAME[,NAME]", kind="text"),
            Option(
                "-d --disk", "20G: a file of bhyved's; /PATH: a disk that is there; /PATH=20G: one to be made", value="DISK", kind="text"
            ),
            Option("--image", "a plain image of a system, to be written onto the disk that is made", value="FILE", kind="text"),
            Option("--disk-model", "virtio-blk (default), nvme or ahci-hd", value="MODEL", kind="text"),
            Option("-b --bridge", "a network card on this bridge", value="BRIDGE", kind="text"),
            Option("--card", "virtio-net (default) or e1000", value="MODEL", kind="text"),
            Option("-m --memory", "such as 2G", value="SIZE", kind="text"),
            Option("--cpus", "how many", value="N", kind="count"),
            Option("--iso", "the install medium, attached by `vmctl start --install` only", value="PATH", kind="text"),
            Option("--user", "the account that cloud-init makes; default: the image's own", value="NAME", kind="text"),
            Option("--ssh-key", "who may log in as that: a public key, or a file with some", value="KEY|FILE", kind="text"),
            Option("--user-data", "a file of your own for cloud-init, in the place of both", value="FILE", kind="text"),
            CONFIG,
        ),
        about=(
            "The file is short, and yours: bhyved never writes to it again. It is checked together with all others before anything is "
            "made, and no file or disk is overwritten. A path below /dev/zvol becomes a ZFS volume, any other a sparse file. Needs no "
            "daemon; `vmctl reload` tells it."
        ),
        examples=(
            ("vmctl create web1 -T linux-uefi -d 20G -b bridge0 --iso /iso/debian.iso", ""),
            ("vmctl create db1 -T freebsd -d /dev/zvol/zroot/vm/db1=100G -b bridge0", "on a ZFS volume"),
            ("vmctl create web2 -T linux-uefi -d 20G --image deb.raw --ssh-key a.pub", "from an image with cloud-init"),
        ),
    ),
    Verb(
        "import",
        "imports:import_guest",
        "write the file of a guest that another tool has looked after",
        guests="file",
        options=(
            Option("-n --dry-run", "print the file, and write nothing"),
            Option("--name", "what the guest is called here; default: what it is called there", value="NAME", kind="text"),
            Option("--guest", "which guest of a file that has several", value="NAME", kind="text"),
            Option("-b --bridge", "the bridge for each switch, network, bridge or tap there", value="THERE=BRIDGE[,...]", kind="text"),
            Option("--dataset", "where the other tool keeps the guest's zvols; default: asked of zfs(8)", value="DATASET", kind="text"),
            CONFIG,
        ),
        about=(
            "FILE is NAME.conf of vm-bhyve, bmd.conf, bhyve.conf of CBSD, the dataset of an iohyve guest, a domain of libvirt (virsh "
            'dumpxml), a bhyve_config(5) file, or a script with a bhyve command; "-" is standard input. Devices keep their PCI slots and '
            "addresses. What has no place in the new file is told, and stands at its top. The guest gets autostart = false: it may still "
            "run elsewhere. Needs no daemon, and changes nothing there."
        ),
        examples=(
            ("vmctl import /zroot/vm/web1/web1.conf", "a guest of vm-bhyve"),
            ("vmctl import /usr/local/etc/bmd.conf --guest web1", "one of bmd's"),
            ("vmctl import /usr/jails/jails-system/web1", "a guest of CBSD"),
            ("vmctl import zroot/iohyve/web1", "a guest of iohyve"),
            ("vmctl import web1.xml --bridge default=bridge0", "what virsh dumpxml web1 has printed"),
            ("vmctl import -n ./run-web1.sh", "only look"),
        ),
    ),
    Verb(
        "reload",
        "host:reload",
        "put changed configuration files in force",
        options=(
            Option("--plan", "change nothing, and say what would change when"),
            Option("--prune", "stop and forget guests whose file is gone"),
        ),
        about="All or nothing: with a problem in any file, nothing changes. No guest is stopped but by --prune.",
        examples=(("vmctl reload --plan", ""), ("vmctl reload", "")),
    ),
    Verb(
        "drain",
        "host:drain",
        "stop every guest of the host and start none",
        options=(Option("--off", "end the drain: guests that are wished up start"), REASON, FOR, *MAY_WAIT),
        about="For maintenance of the host. Guests keep the wish to be up, and start when the drain is over.",
        examples=(("vmctl drain --reason 'new memory' --wait", ""), ("vmctl drain --off", "")),
    ),
)

BY_NAME = {verb.name: verb for verb in VERBS}
