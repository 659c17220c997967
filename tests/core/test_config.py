"""Files in; specs, or every problem of every file, out."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bhyved.core.config import Loaded, Source, load
from bhyved.core.spec import DaemonSpec, VmSpec, dump, undump
from bhyved.core.units import Duration, Limit, Size


def read(main: str = "", *, templates: dict[str, str] | None = None, **guests: str) -> Loaded:
    return load(
        Source("bhyved.toml", main),
        {name: Source(f"vm.d/{name}.toml", text) for name, text in guests.items()},
        {name: Source(f"template.d/{name}.toml", text) for name, text in (templates or {}).items()},
    )


def lines(loaded: Loaded) -> list[str]:
    return [str(problem) for problem in loaded.problems]


DESIGN = """
cpus = 2
memory = "2G"
wired = false
autostart = true
template = ["base"]
clock = "utc"
owner = ["alice", "@webops"]

[boot]
loader = "uefi"

[[disk]]
path = "/dev/zvol/zroot/vm/web1"
model = "nvme"

[[cdrom]]
path = "/iso/installer.iso"
when = "install"

[[network]]
bridge = "bridge0"
model = "virtio-net"
mac = "58:9c:fc:00:00:01"

[[serial]]
[graphics]
[tpm]

[restart]
on-reboot = "restart"
on-poweroff = "stop"
on-crash = "restart"
reboot-limit = "5 in 5m"
crash-limit = "5 in 10m"
backoff = "2s"
backoff-max = "60s"
stable-after = "10m"
over-limit = "hold"

[stop]
presses = ["0s", "2s", "10s", "30s"]
timeout = "60s"

[order]
after = ["db1"]
requires = []
ready = { console = "login:" }

[bhyve]
options = { "x86.strictmsr" = false }
"""


def test_a_full_file_is_read() -> None:
    """Every table of a full example arrives in the spec."""
    loaded = read(web1=DESIGN, db1="", templates={"base": 'memory = "1G"\n[stop]\ntimeout = "5m"\n'})
    assert loaded.problems == ()
    spec = loaded.vms["web1"]
    assert spec.cpus.count == 2
    assert spec.memory == Size(2 << 30)
    assert spec.owner == ("alice", "@webops")
    assert spec.disk[0].model == "nvme"
    assert spec.cdrom[0].when == "install"
    assert spec.restart.reboot_limit == Limit(5, Duration(300))
    assert spec.stop.timeout == 60
    assert spec.order.ready is not None
    assert spec.order.ready.console == "login:"
    assert spec.bhyve.options == {"x86.strictmsr": "false"}


def test_an_empty_file_is_a_guest() -> None:
    """Every key has a default, and the example of all defaults equals the empty file."""
    loaded = read(a="", main="")
    assert loaded.daemon == DaemonSpec()
    assert loaded.vms["a"].restart == read(web1=DESIGN, db1="", templates={"base": ""}).vms["web1"].restart
    assert loaded.vms["a"].serial[0].port == "com1"


def test_a_spec_survives_its_record() -> None:
    """What is written into a run's record reads back as the same spec."""
    spec = read(web1=DESIGN, db1="", templates={"base": ""}).vms["web1"]
    assert undump(dump(spec)) == spec
    assert hash(undump(dump(spec))) == hash(spec)


CASES = [
    ("cpus = 0", "cpus: found 0; must be an integer from 1 to 1024"),
    ('cpus = "2"', 'cpus: found "2"; must be a number of vCPUs, or a table such as { sockets = 1, cores = 2 }'),
    ("cpus = { cores = 0 }", "cpus.cores: found 0; must be an integer from 1 to 1024"),
    ('cpus = { cores = 2, pin = ["2:0"] }', 'cpus.pin[0]: found "2:0"; there is no vCPU 2: this guest has 2, counted from 0'),
    ("memory = 512", 'memory: found 512; must be text, in quotes, for example "2G"'),
    ('memory = "512"', 'memory: found "512"; a size is a number and K, M, G or T, for example "2G"'),
    ('wired = "yes"', 'wired: found "yes"; must be true or false'),
    ('clock = "UTC"', 'clock: found "UTC"; must be one of "utc", "localtime"'),
    ("memroy = '1G'", 'memroy: unknown key; did you mean "memory"?'),
    ('name = "x"', "name: is no key of the file: its own name says it"),
    ('[disk]\npath = "/a"', "disk: found a table; must be an array of tables: write [[disk]]"),
    ("[[boot]]", "boot: found an array; must be a table: write [boot]"),
    ("[[disk]]", "disk[0].path: is missing: a file, a zvol or a disk device"),
    ('[[disk]]\npath = "a.img"', 'disk[0].path: found "a.img"; must be an absolute path, beginning with "/"'),
    ('[[disk]]\npath = "/50%"', 'disk[0].path: found "/50%"; must not hold "%": no release of bhyve has a clean spelling for it'),
    ('[[disk]]\npath = "/a\\nb"', 'disk[0].path: found "/a\\nb"; must be one line without control characters'),
    (
        '[[disk]]\npath = "/a"\nmodel = "ahci"',
        'disk[0].model: found "ahci"; must be one of "virtio-blk", "ahci-hd", "nvme", "virtio-scsi"; did you mean "ahci-hd"?',
    ),
    ('[[disk]]\npath = "/a"\nio-slots = 8', 'disk[0].io-slots: found 8; model = "virtio-blk" has no such option'),
    ('[[disk]]\npath = "/a"\nread_only = true', 'disk[0].read_only: unknown key; did you mean "read-only"?'),
    ('[[network]]\nmca = "x"', 'network[0].mca: unknown key; did you mean "mac"?'),
    (
        '[[network]]\ntap = "em0"',
        'network[0].tap: found "em0"; must be named "tap" and a number: bhyve opens nothing else as a tap',
    ),
    (
        '[[network]]\ntap = "tap0"\nvmnet = "vmnet0"',
        'network[0].vmnet: found "vmnet0"; a card has one backend, and tap is given too',
    ),
    ('[[cdrom]]\nwhen = "install"', "cdrom[0].path: is missing"),
    ("[boot]\nautostart = true", "boot.autostart: unknown key here; it belongs to the top of the file, before the first [table]"),
    ('bridge = "bridge0"', "bridge: unknown key here; it belongs into [[network]]"),
    ('[boot]\nloader = "grub"\nfirmware = "/x"', 'boot.firmware: found "/x"; loader = "grub" uses no firmware'),
    ('[boot]\ngrub = { root = "hd0" }', 'boot.grub: is given, but loader is "uefi"'),
    ("[restart]\nbackoff = '5m'", "restart.backoff-max: 1m is shorter than backoff, which is 5m"),
    ("[restart]\nreboot-limit = 5", 'restart.reboot-limit: found 5; must be text, in quotes, for example "5 in 5m"'),
    ('[stop]\npresses = ["2s", "0s"]', "stop.presses: must grow: 0s does not come after 2s"),
    ('[stop]\npresses = "0s"', 'stop.presses: found "0s"; must be an array, in [brackets]'),
    ("[order]\nready = {}", "order.ready: must have one of console, tcp, ping, uptime, command or agent; found none"),
    ('[order]\nready = { console = "(" }', 'order.ready.console: found "("; is no regular expression: '),
    ('[[serial]]\nmode = "tcp"', 'serial[0].address: mode = "tcp" needs one, such as "127.0.0.1:4001"'),
    ("[[serial]]\n" * 5, "serial: found 5 of them; at most 4 are possible"),
    ("[[serial]]\n[[serial]]", 'serial[1]: "com1" is serial[0] already'),
    (
        "[health]\nagent = true",
        'health.agent: found true; needs a [[virtio-console]] with name = "org.qemu.guest_agent.0", by which the agent is asked',
    ),
    (
        "[order]\nready = { agent = true }",
        'order.ready.agent: found true; needs a [[virtio-console]] with name = "org.qemu.guest_agent.0", by which the agent is asked',
    ),
    ('[[passthru]]\ndevice = "ppt0"', "wired: must be true with [[passthru]]: bhyve refuses it otherwise, and exits 4"),
    (
        '[bhyve]\noptions = { "config.dump" = true }',
        'bhyve.options."config.dump": found true; bhyve would print its configuration and exit 1 instead of running the guest',
    ),
    ('[bhyve]\noptions = { "a..b" = 1 }', 'bhyve.options."a..b": found 1; must be names joined by dots'),
    ('[bhyve]\noptions = { "a" = "%(b)" }', 'bhyve.options.a: found "%(b)"; must not hold "%"'),
    ('[bhyve]\noptions = { "memory.size" = "1G" }', 'bhyve.options."memory.size": found "1G"; use memory = "…"'),
    ('[bhyve]\noptions = { "pci.0.0.0.device.x" = 1 }', "bhyve.options: pci.0.0.0.device.x: pci.0.0.0.device is a variable already"),
    ("[bhyve]\noptions = { x = [1] }", "bhyve.options: found a table; 'x' must be a string, an integer or a boolean"),
    ('disk = ["/a"]', 'disk[0]: found "/a"; must be a table: write [[disk]]'),
    ("[[disk]]\npath = '/a'\nslot = 5", "disk[0].slot: found 5; must be text, in quotes"),
    ("[bhyve]\noptions = 5", 'bhyve.options: found 5; must be a table, such as { name = "value" }'),
    ("owner = [5]", "owner[0]: found 5; must be text, in quotes"),
    ("[stop]\npresses = ['4s', '2s', '1s']", "stop.presses: must grow: 2s does not come after 4s"),
    ("template = 5", "template: found 5; must be an array of names"),
]


@pytest.mark.parametrize(("text", "line"), CASES, ids=[text.replace("\n", " ")[:40] for text, _ in CASES])
def test_one_problem(text: str, line: str) -> None:
    """A problem says file, line, key, value found and what would be right, and there is exactly one line for it."""
    (problem,) = lines(read(a=text))
    assert re.sub(r"^vm.d/a.toml(:[0-9]+)?: ", "", problem).startswith(line)


def test_every_problem_of_every_file_at_once() -> None:
    """Nothing hides behind the first problem: two in one table, one in another, one in each further file."""
    loaded = read(
        "start-gap = 2\n[log]\nlevel = 'loud'",
        a='cpus = 0\n[[disk]]\npaht = "/x"\nmodel = "nvmee"',
        b="x = ",
        c="[stop]\ntimeout = '1'",
        templates={"t": "wired = 1"},
    )
    assert len(loaded.problems) == 8, lines(loaded)
    assert {problem.file for problem in loaded.problems} == {
        "bhyved.toml",
        "vm.d/a.toml",
        "vm.d/b.toml",
        "vm.d/c.toml",
        "template.d/t.toml",
    }
    assert loaded.daemon is None
    assert loaded.vms == {}


def test_a_broken_guest_costs_only_itself() -> None:
    """The other guests are there, and the broken one's problems are found under its name."""
    loaded = read(a="cpus = 0", b="cpus = 3")
    assert set(loaded.vms) == {"b"}
    assert [problem.key for problem in loaded.problems_of("a")] == ["cpus"]
    assert loaded.problems_of("b") == ()


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("a = 1\nb = [\n", "vm.d/a.toml:"),
        ("a = 1\na = 2\n", "vm.d/a.toml:"),
        ("a = " + "9" * 5000, "vm.d/a.toml:"),
        ("a = " + "[" * 5000, "vm.d/a.toml:"),
        ("\0", "vm.d/a.toml:"),
    ],
)
def test_what_is_no_toml_is_a_problem(text: str, start: str) -> None:
    """A syntax error, and what only makes the parser stumble, is one line."""
    (line,) = lines(read(a=text))
    assert line.startswith(start)
    assert "no TOML" in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("cpus = 1\nmemory 2\n", "2: found \"memory 2\"; is no TOML: expected '=' after a key in a key/value pair, column 8"),
        ("cpus = 1\ncpus = 2\n", '2: found "cpus = 2"; is no TOML: the key has a value already, column 9'),
        ("[boot]\n[stop]\n  [boot]\n", '3: found "[boot]"; is no TOML: cannot declare [boot] twice, column 8'),
        ('a.b = {}\n[a."c.d"]\n[a.b]\n', '3: found "[a.b]"; is no TOML: cannot declare [a.b] twice, column 5'),
        ("[stop]\ntimeout = 90s\n", '2: found "timeout = 90s"; is no TOML: text must be in quotes: timeout = "90s"'),
        ("disk=/vm/a.img # mine\n", '1: found "disk=/vm/a.img # mine"; is no TOML: text must be in quotes: disk = "/vm/a.img"'),
        ("autostart = True\n", '1: found "autostart = True"; is no TOML: it is written so: autostart = true'),
        ("wired=NO\n", '1: found "wired=NO"; is no TOML: it is written so: wired = false'),
        ("cpus = 2.\n", '1: found "cpus = 2."; is no TOML: expected newline or end of document after a statement, column 9'),
        ("memory = \u201c1G\u201d", '1: found "memory = \\u201c1G\\u201d"; is no TOML: invalid value, column 10'),
        ("cpus = 2\nowner = [", '2: found "owner = ["; is no TOML: invalid value, at the end of the file'),
    ],
)
def test_a_syntax_error_has_its_line(text: str, line: str) -> None:
    """The number is where an editor shows it, and what stands there is shown: tomllib's complaint alone says little."""
    assert lines(read(a=text)) == [f"vm.d/a.toml:{line}"]


def test_problems_stand_in_the_order_of_their_lines() -> None:
    """However they were found: whoever mends them goes through each file from top to bottom."""
    text = 'cpu = 2\nmemory = 2\n[stop]\ntimeout = 60\n[boot]\nloader = "efi"\n[disk]\n'
    files = read(a="nosuch = 1\n", b=text)

    assert [problem.line for problem in files.problems] == [1, 1, 2, 4, 6, 7]
    assert [problem.file for problem in files.problems] == ["vm.d/a.toml", *["vm.d/b.toml"] * 5]


def test_a_number_too_long_is_told_without_pythons_words() -> None:
    """What Python cannot read it does not explain to an operator."""
    assert lines(read(a="cpus = " + "9" * 5000)) == ["vm.d/a.toml: is no TOML: a number has too many digits"]


def test_a_problem_stands_on_its_line() -> None:
    """That of its key, else of its table, in the file that the value comes from; without either there is none."""
    loaded = read(
        a='cpus = 2\ntemplate = ["t"]\n\n[[disk]]\npath = "/a"\n[[disk]]\n[order]\nafter = [\n  "b",\n]\n[[passthru]]\ndevice = "ppt0"\n',
        b='[stop]\npresses = ["0s",\n  5]\n',
        templates={"t": '# one\nclock = "UTC"\n'},
    )
    assert [(problem.file, problem.line, problem.key) for problem in loaded.problems] == [
        ("template.d/t.toml", 2, "clock"),
        ("vm.d/a.toml", 6, "disk[1].path"),
        ("vm.d/b.toml", 2, "stop.presses[1]"),
    ]
    (wired,) = read(a='[[passthru]]\ndevice = "ppt0"\n').problems
    assert (wired.key, wired.line) == ("wired", None)


def test_a_bad_file_name_is_a_problem() -> None:
    """The file's name is the guest's name, and must be one."""
    (line,) = [str(p) for p in load(Source("b", ""), {"-rf": Source("vm.d/-rf.toml", "")}, {}).problems]
    assert 'rename the file, "-rf" comes from it' in line


class TestTemplates:
    """Templates: later wins, tables merge, arrays replace."""

    def test_layers(self) -> None:
        """Of two templates the later wins, the guest's own file wins over both, and tables merge key by key."""
        spec = read(
            a='template = ["one", "two"]\n[stop]\ntimeout = "7s"\n',
            templates={
                "one": 'memory = "1G"\ncpus = 3\n[stop]\npresses = ["1s"]\n[[disk]]\npath = "/one"\n[[disk]]\npath = "/extra"',
                "two": 'memory = "4G"\n[[disk]]\npath = "/two"\n[stop]\ntimeout = "9s"',
            },
        ).vms["a"]
        assert (spec.memory, spec.cpus.count) == (Size(4 << 30), 3)
        assert [disk.path for disk in spec.disk] == ["/two"]
        assert spec.stop.presses == (1.0,)
        assert spec.stop.timeout == 7

    def test_templates_have_templates(self) -> None:
        """A template may build on others."""
        loaded = read(a='template = "top"', templates={"top": 'template = ["ground"]\ncpus = 2', "ground": 'cpus = 1\nmemory = "1G"'})
        assert loaded.problems == ()
        assert loaded.vms["a"].cpus.count == 2
        assert loaded.vms["a"].memory == Size(1 << 30)

    def test_merging_leaves_templates_alone(self) -> None:
        """Two guests on one template do not see each other's keys."""
        loaded = read(a='template="t"\n[stop]\ntimeout="7s"', b='template="t"', templates={"t": '[stop]\npresses=["1s"]'})
        assert loaded.vms["b"].stop.timeout == 60

    def test_a_circle_is_named(self) -> None:
        """Templates that build on each other are refused, with the circle."""
        loaded = read(a='template = ["x"]', templates={"x": 'template = ["y"]', "y": 'template = ["x"]'})
        assert any("x → y → x" in line for line in lines(loaded))
        assert loaded.vms == {}

    def test_an_unknown_one_is_named_with_the_nearest(self) -> None:
        """A typing error in a template's name is told."""
        (line,) = lines(read(a='template = ["bsae"]', templates={"base": ""}))
        assert line == 'vm.d/a.toml:1: template: found "bsae"; there is no such template; did you mean "base"?'

    def test_a_problem_names_the_template_once(self) -> None:
        """A bad value is the template's problem, one line however many guests use it, and each of them is held up by it."""
        loaded = read(a='template="t"', b='template="t"', c="", templates={"t": 'memory = "lots"'})
        (problem,) = loaded.problems
        assert problem.file == "template.d/t.toml"
        assert set(problem.vms) == {"a", "b"}
        assert set(loaded.vms) == {"c"}

    def test_the_guest_may_mend_its_template(self) -> None:
        """A value that a guest overrides is still the template's problem, not the guest's."""
        loaded = read(a='template="t"\nmemory="1G"', templates={"t": 'memory = "lots"'})
        assert [problem.file for problem in loaded.problems] == ["template.d/t.toml"]
        assert set(loaded.vms) == {"a"}

    def test_rules_between_keys_wait_for_the_guest(self) -> None:
        """A template need not be complete."""
        assert read(templates={"t": '[restart]\nbackoff = "2m"'}).problems == ()

    def test_a_broken_template_holds_up_its_guests(self) -> None:
        """A guest whose template is no TOML cannot be known."""
        loaded = read(a='template="t"', templates={"t": "x = "})
        assert loaded.vms == {}
        assert {problem.file for problem in loaded.problems} == {"vm.d/a.toml", "template.d/t.toml"}


class TestNeighbours:
    """What guests of one host must not share."""

    @pytest.mark.parametrize(
        ("one", "other", "key"),
        [
            ('[[network]]\nmac="58:9c:fc:00:00:01"', '[[network]]\nmac="58-9C-FC-00-00-01"', "network[0].mac"),
            ('uuid="6bc34f7c-1b1e-11ef-8c8a-0242ac120002"', 'uuid="6BC34F7C-1B1E-11EF-8C8A-0242AC120002"', "uuid"),
            ('[graphics]\nlisten="127.0.0.1:5900"', '[graphics]\nlisten="0.0.0.0:5900"', "graphics.listen"),
            ('[graphics]\nlisten="127.0.0.1:5900"', '[[serial]]\nmode="tcp"\naddress="127.0.0.1:5900"', "serial[0].address"),
            ('[[network]]\ntap="tap0"', '[[network]]\ntap="tap0"', "network[0].tap"),
            ('[boot]\nvars="/v"', '[boot]\nvars="/v"', "boot.vars"),
            ('[[virtio-console]]\nname="a"\npath="/s"', '[[virtio-console]]\nname="a"\npath="/s"', "virtio-console[0].path"),
        ],
    )
    def test_fatal_clashes(self, one: str, other: str, key: str) -> None:
        """A thing that exists once is a problem of the second guest, and names the first."""
        loaded = read(a=one, b=other)
        (problem,) = loaded.problems
        assert problem.file == "vm.d/b.toml"
        assert problem.key == key
        assert "belongs to a" in problem.sentence
        assert set(problem.vms) == {"a", "b"}
        assert set(loaded.vms) == {"a", "b"}

    @pytest.mark.parametrize(
        ("one", "other", "warns"),
        [
            ("", "", True),
            ("shared = true", "", True),
            ("shared = true", "shared = true", False),
            ("read-only = true", "read-only = true", False),
            ("read-only = true", "", True),
        ],
    )
    def test_a_disk_of_two_guests_is_a_warning(self, one: str, other: str, warns: bool) -> None:
        """They may be meant for different times; bhyved denies the second start."""
        loaded = read(a=f'[[disk]]\npath="/d"\n{one}', b=f'[[disk]]\npath="/d"\n{other}')
        assert loaded.problems == ()
        assert [str(warning) for warning in loaded.warnings] == (
            [
                'vm.d/b.toml:2: disk[0].path: found "/d"; the disk belongs to a (disk[0]) too; '
                "they cannot run together unless both say shared = true"
            ]
            if warns
            else []
        )

    def test_slots_clash_with_both_owners(self) -> None:
        """Two devices in one slot are refused, both named."""
        (line,) = lines(read(a='[[disk]]\npath="/a"\nslot="5"\n[[network]]\nslot="0:5:0"'))
        assert line == "vm.d/a.toml:4: network[0]: slot 0:5:0 belongs to disk[0] already"

    def test_unknown_guests_in_order(self) -> None:
        """A guest that waits for nobody known is told; one that waits for a broken guest is not."""
        loaded = read(a='[order]\nafter=["db"]\nrequires=["broken"]', db1="", broken="x=")
        assert 'vm.d/a.toml:2: order.after[0]: found "db"; there is no such guest; did you mean "db1"?' in lines(loaded)
        assert not any("requires" in line for line in lines(loaded))

    def test_a_circle_of_guests_is_named(self) -> None:
        """Guests that wait for each other are refused, with the circle."""
        (line,) = lines(read(a='[order]\nafter=["b"]', b='[order]\nrequires=["c"]', c='[order]\nafter=["a"]', d='[order]\nafter=["a"]'))
        assert line == "vm.d/a.toml:1: order: guests wait for each other in a circle: a → b → c → a"


@given(st.text(max_size=200))
def test_any_text_is_answered(text: str) -> None:
    """No text of a file raises, and each problem is one printable line."""
    loaded = read(text, a=text, templates={"t": text})
    for problem in loaded.problems:
        assert "\n" not in str(problem)


_SCALARS = st.one_of(st.integers(), st.booleans(), st.floats(allow_nan=False), st.text(max_size=12), st.dates())
_KEYS = st.sampled_from([field.replace("_", "-") for field in VmSpec.__struct_fields__] + ["path", "x"])
_TABLES = st.recursive(_SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=4), max_leaves=12)


@given(st.dictionaries(_KEYS, _TABLES, max_size=6))
def test_any_table_is_answered(table: dict[str, object]) -> None:
    """Values of every wrong type at every place give problems, not exceptions."""
    tomli_w = pytest.importorskip("tomli_w")
    loaded = read(a=tomli_w.dumps(table))
    assert "a" in loaded.vms or loaded.problems_of("a")


def test_what_guests_share_is_shown_on_one_printable_line() -> None:
    """A path with a control character of Unicode's is found between guests too, and no terminal obeys it."""
    text = 'disk = [{ path = "/d\u0085" }]\n'
    loaded = load(Source("bhyved.toml", ""), {name: Source(f"vm.d/{name}.toml", text) for name in ("a", "b")}, {})
    (warning,) = loaded.warnings
    assert 'found "/d\\x85"' in str(warning)
    assert str(warning).isprintable()
