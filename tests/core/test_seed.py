"""`[cloud-init]`: what may stand there, and the files that it becomes, in words that cloud-init and nuageinit(7) both read."""

import pytest
from msgspec.structs import replace

from bhyved.core import seed, slots
from bhyved.core.assigned import Target, provisional
from bhyved.core.bhyveconf import tree
from bhyved.core.config import Loaded, Source, load
from bhyved.core.exits import ExitKind
from bhyved.core.spec import VmSpec

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIK+MH4E8KO32N5CXRvXVqvyZVl0 alice@example.org"
OTHER = "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAI="
MAC = "58:9c:fc:00:00:01"


def loaded(text: str, name: str = "web1") -> Loaded:
    return load(Source("", ""), {name: Source(f"{name}.toml", text)}, {})


def guest(text: str, name: str = "web1") -> VmSpec:
    found = loaded(text, name)
    assert found.problems == ()
    return found.vms[name]


def made(spec: VmSpec, contents: seed.Contents | None = None) -> dict[str, str]:
    """The seed as text."""
    macs, cards = provisional(spec).macs, slots.network_identities(spec)
    return {name: data.decode() for name, data in seed.files(spec, contents or seed.Contents(), macs, cards).items()}


# --- the files --------------------------------------------------------------------------------------------------------------------


def test_an_empty_table_names_the_guest() -> None:
    """Without a key, the seed says what the guest is called, and no more: that alone sets up the image's own user and DHCP."""
    assert made(guest("[cloud-init]")) == {
        "meta-data": 'instance-id: "web1"\nlocal-hostname: "web1"\n',
        "user-data": "#cloud-config\n",
    }


def test_the_short_keys() -> None:
    """A user with his keys and password, packages, commands: block style, two blanks a level, texts in quotes."""
    text = f"""
[cloud-init]
hostname = "www.example.org"
instance-id = "again"
user = "alice"
groups = ["wheel", "operator"]
ssh-keys = ["{KEY}"]
password-hash-file = "/secret"
packages = ["nginx"]
run = ["service nginx onestart"]
"""
    files = made(guest(text), seed.Contents(keys=(KEY, OTHER), password_hash="$6$salt$hash"))

    assert files == {
        "meta-data": 'instance-id: "again"\nlocal-hostname: "www.example.org"\n',
        "user-data": f"""\
#cloud-config
users:
  - name: "alice"
    groups: "wheel,operator"
    sudo: "ALL=(ALL) NOPASSWD:ALL"
    lock_passwd: false
    passwd: "$6$salt$hash"
    ssh_authorized_keys:
      - "{KEY}"
      - "{OTHER}"
package_update: true
packages:
  - "nginx"
runcmd:
  - "service nginx onestart"
""",
    }


def test_keys_without_a_user_are_the_default_users() -> None:
    """What the image's own user is called, the image knows."""
    assert made(guest("[cloud-init]"), seed.Contents(keys=(KEY,)))["user-data"] == f'#cloud-config\nssh_authorized_keys:\n  - "{KEY}"\n'


def test_a_user_without_sudo() -> None:
    """`sudo = false` makes an ordinary account."""
    assert made(guest('[cloud-init]\nuser = "bob"\nsudo = false'))["user-data"] == '#cloud-config\nusers:\n  - name: "bob"\n'


def test_cards_are_known_by_their_addresses() -> None:
    """Version 2, by MAC: given ones and those that bhyved has chosen; a card without an entry is left out."""
    text = f"""
[[network]]
mac = "{MAC}"
[[network]]
[[network]]
[cloud-init]
[[cloud-init.network]]
addresses = ["192.0.2.10/24", "2001:DB8::10/64"]
gateways = ["192.0.2.1", "2001:db8::1"]
nameservers = ["192.0.2.53"]
search = ["example.org"]
[[cloud-init.network]]
"""
    spec = guest(text)
    second = provisional(spec).macs["network:1"]

    assert (
        made(spec)["network-config"]
        == f"""\
version: 2
ethernets:
  card0:
    match:
      macaddress: "{MAC}"
    addresses:
      - "192.0.2.10/24"
      - "2001:db8::10/64"
    gateway4: "192.0.2.1"
    gateway6: "2001:db8::1"
    nameservers:
      search:
        - "example.org"
      addresses:
        - "192.0.2.53"
  card1:
    match:
      macaddress: "{second}"
    dhcp4: true
"""
    )


def test_own_files_are_taken_as_they_are() -> None:
    """Not a byte of them is changed, whatever they are."""
    contents = seed.Contents(user_data=b"#!/bin/sh\n\xff", meta_data=b"a: 1", network_config=b"version: 1\n")
    spec = guest('[cloud-init]\nuser-data = "/u"\nmeta-data = "/m"\nnetwork-config = "/n"')
    files = seed.files(spec, contents, {}, ())

    assert files == {"user-data": b"#!/bin/sh\n\xff", "meta-data": b"a: 1", "network-config": b"version: 1\n"}


@pytest.mark.parametrize(
    ("command", "line"),
    [
        ("date +%F # now", '"date +%F # now"'),
        ("yes", '"yes"'),
        ('echo "a: b"', """'echo "a: b"'"""),
        (r"printf 'a\n'", r"printf 'a\n'"),  # neither quotes nor escapes: all that nuageinit of FreeBSD 14 can read
        (r"yes '\y'", r"""'yes ''\y'''"""),
        ("""x='"' # y""", """'x=''"'' # y'"""),
    ],
)
def test_quotes_that_both_parsers_read_alike(command: str, line: str) -> None:
    """As few tricks of YAML as the text allows."""
    spec = guest(f"[cloud-init]\nrun = ['''{command}''']")

    assert made(spec)["user-data"].endswith(f"runcmd:\n  - {line}\n")


@pytest.mark.parametrize(("name", "host"), [("web1", "web1"), ("my_vm", "my-vm"), ("db.example.org", "db.example.org"), ("x_", "x")])
def test_a_guests_name_as_a_hosts(name: str, host: str) -> None:
    """What no host can be called is written otherwise; the instance keeps the guest's name."""
    assert made(guest("[cloud-init]", name))["meta-data"] == f'instance-id: "{name}"\nlocal-hostname: "{host}"\n'


# --- its fingerprint --------------------------------------------------------------------------------------------------------------


def test_an_image_knows_its_seed() -> None:
    """It carries the fingerprint of the files that it was made of, which no other files have."""
    one, other = {"user-data": b"a", "meta-data": b"b"}, {"user-data": b"ab", "meta-data": b""}
    image = b"\0".join(seed.marked(one).values())

    assert seed.fingerprint(one) == seed.fingerprint(dict(reversed(one.items())))
    assert seed.fingerprint_in(image) == seed.fingerprint(one)
    assert seed.fingerprint(one) not in (seed.fingerprint(other), seed.fingerprint({**one, "network-config": b""}))
    assert seed.fingerprint_in(b"bhyved-seed") == ""


@pytest.mark.parametrize(
    ("kind", "forced", "is_set_up"),
    [
        (ExitKind.POWEROFF, False, True),
        (ExitKind.REBOOT, False, True),
        (ExitKind.HALT, False, True),
        (ExitKind.POWEROFF, True, False),
        (ExitKind.TRIPLE_FAULT, False, False),
        (ExitKind.SUSPENDED, False, False),
        (ExitKind.KILLED, False, False),
        (ExitKind.UNKNOWN, False, False),
    ],
)
def test_which_ends_are_those_of_a_guest_that_is_set_up(kind: ExitKind, forced: bool, is_set_up: bool) -> None:
    """Only an end of the guest's own, in order."""
    assert seed.was_set_up(kind, forced=forced) is is_set_up


# --- what may stand there ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('hostname = "a_b"', '2: cloud-init.hostname: found "a_b"; must be the name of a host'),
        ('hostname = "-a"', '2: cloud-init.hostname: found "-a"; must be the name of a host'),
        ('user = "1 a"', '2: cloud-init.user: found "1 a"; must be the name of an account'),
        ('ssh-keys = ["ssh-rsa x"]', '2: cloud-init.ssh-keys[0]: found "ssh-rsa x"; must be a public key'),
        (
            'ssh-keys = ["-----BEGIN OPENSSH PRIVATE KEY-----"]',
            '2: cloud-init.ssh-keys[0]: found "-----BEGIN OPENSSH PRIVATE KEY-----"; must be a',
        ),
        ('run = ["a\\u0085"]', '2: cloud-init.run[0]: found "a\\x85"; must be one line of printable characters'),
        ('groups = ["wheel"]', "2: cloud-init.groups: needs user: what the image's default user is called is not known"),
        ('password-hash-file = "/x"', '2: cloud-init.password-hash-file: found "/x"; needs user'),
        ('user-data = "/u"\nrun = ["x"]', "3: cloud-init.run: stands in the file that user-data names, or here, not both"),
        ('user-data = "/u"\nuser = "a"', '3: cloud-init.user: found "a"; stands in the file that user-data names, or here, not both'),
        ('meta-data = "/m"\nhostname = "a"', '3: cloud-init.hostname: found "a"; stands in the file that meta-data names'),
        ('network-config = "/n"\n[[cloud-init.network]]', "3: cloud-init.network: stands in the file that network-config names"),
        ("[[cloud-init.network]]", "2: cloud-init.network[0]: there is no card for it: the guest has 0 [[network]]"),
        ('when = "once"', '2: cloud-init.when: found "once"; must be one of "always", "first"'),
    ],
)
def test_what_cannot_be(text: str, said: str) -> None:
    """One line for each mistake, with what would be right."""
    (problem,) = loaded(f"[cloud-init]\n{text}").problems

    assert str(problem).startswith(f"web1.toml:{said}")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('dhcp = true\naddresses = ["192.0.2.10/24"]', "dhcp: found true; a card has its addresses from DHCP or from addresses, not both"),
        ('addresses = ["192.0.2.10"]', 'addresses[0]: found "192.0.2.10"; must be an address with the length of its prefix'),
        ('addresses = ["192.0.2.10/255.255.255.0"]', 'addresses[0]: found "192.0.2.10/255.255.255.0"; must be an address with the'),
        ('gateways = ["192.0.2.1"]', 'gateways[0]: found "192.0.2.1"; is of no use without an IPv4 address in addresses'),
        (
            'addresses = ["192.0.2.10/24"]\ngateways = ["192.0.2.1", "192.0.2.2"]',
            'gateways[1]: found "192.0.2.2"; is a second gateway for IPv4, and one is possible',
        ),
        ('nameservers = ["dns"]', 'nameservers[0]: found "dns"; must be an address, such as "192.0.2.1" or "2001:db8::1"'),
    ],
)
def test_what_a_card_cannot_be(text: str, said: str) -> None:
    """The same of `[[cloud-init.network]]`."""
    (problem,) = loaded(f"[[network]]\n[[cloud-init.network]]\n{text}").problems

    assert f" cloud-init.network[0].{said}" in str(problem)


@pytest.mark.parametrize(
    "key",
    [
        KEY,
        OTHER,
        "sk-ssh-ed25519@openssh.com AAAAGnNrLXNzaC1lZDI1NTE5 token",
        'from="192.0.2.0/24",no-pty ssh-rsa AAAAB3NzaC1yc2E= x',
    ],
)
def test_keys_that_sshd_knows(key: str) -> None:
    """Every type, with options before it and a comment behind it."""
    assert seed.keys_in(f"# of alice\n\n {key}\n") == ((key,), "")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has no public key"),
        ("# nothing\n", "has no public key"),
        (f"{KEY}\nhello\n", "line 2 is no public key such as"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\nabc\n", "is a private key: a guest gets the public one"),
    ],
)
def test_a_file_without_keys(text: str, said: str) -> None:
    """Not half of it is taken."""
    keys, problem = seed.keys_in(text)

    assert keys == ()
    assert problem.startswith(said)


@pytest.mark.parametrize(
    "data",
    [
        b"#cloud-config\nusers: []\n",
        b"#cloud-config\r\n",
        b"#!/bin/sh\n",
        b"## template: jinja\n#cloud-config\n",
        b"Content-Type: multipart/mixed; boundary=x\n",
        b"#include\nhttps://example.org\n",
        b"\x1f\x8b\x08",
    ],
)
def test_user_data_that_cloud_init_knows(data: bytes) -> None:
    """By its beginning: what follows is cloud-init's."""
    assert seed.user_data_problem(data) == ""


@pytest.mark.parametrize("data", [b"", b"\n \n", b"users: []\n", b"\n#cloud-config\n", b"\xef\xbb\xbf#cloud-config\n", b"# cloud-config\n"])
def test_user_data_that_would_be_ignored(data: bytes) -> None:
    """cloud-init says nothing of it but in a log within the guest, which nobody can log into then."""
    assert "the line" in seed.user_data_problem(data)


@pytest.mark.parametrize(("text", "found"), [("$6$salt$abc./\n", "$6$salt$abc./"), ("$2b$12$abc\nmore", "$2b$12$abc"), ("secret\n", "")])
def test_the_hash_of_a_password(text: str, found: str) -> None:
    """The first line, and never a password itself."""
    hashed, problem = seed.hash_in(text)

    assert hashed == found
    assert bool(problem) is not bool(found)
    assert "secret" not in problem


# --- the drive --------------------------------------------------------------------------------------------------------------------


def test_the_drive_has_a_slot_that_moves_nothing() -> None:
    """A guest that gets a seed keeps every slot it has, and keeps them when the seed goes."""
    devices = '[[disk]]\npath = "/d"\n[[cdrom]]\npath = "/i"\n[[passthru]]\ndevice = "ppt0"'
    without = guest(f"wired = true\n{devices}")
    before = slots.assign(without, {})
    text = f"wired = true\n[cloud-init]\n{devices}"
    after = slots.assign(guest(text), before)

    assert after == {**before, "cloud-init": "0:27:0"}
    assert slots.assign(without, after) == before
    assert slots.assign(guest(text.replace("[cloud-init]", '[cloud-init]\nslot = "9"')), {})["cloud-init"] == "0:9:0"


@pytest.mark.parametrize(
    ("model", "node"),
    [
        ("ahci-cd", {"device": "ahci", "port.0.type": "cd", "port.0.path": "/seed.iso"}),
        ("virtio-blk", {"device": "virtio-blk", "path": "/seed.iso", "ro": "true"}),
    ],
)
def test_the_drive_in_bhyves_file(model: str, node: dict[str, str]) -> None:
    """A CD, or a disk that cannot be written; and nothing where it is not attached."""
    spec = guest(f'[cloud-init]\nmodel = "{model}"')
    assigned = provisional(spec)
    for path, expected in (("/seed.iso", node), ("", {})):
        variables = tree(spec, replace(assigned, seed=path), Target())
        start = "pci.0.27.0."
        assert {name.removeprefix(start): value for name, value in variables.items() if name.startswith(start)} == expected
