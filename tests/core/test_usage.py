"""bhyvectl's counters as it prints them."""

from bhyved.core.usage import Vcpus, parse_stats

TEXT = f"""vcpu0 stats:
{"number of ticks vcpu was idle":<40}\t1234
{"vm exits due to external interrupt":<40}\t7
{"Resident memory":<40}\t268435456
{"Wired memory":<40}\t0
vcpu1 stats:
{"vm exits due to external interrupt":<40}\t9
{"Resident memory":<40}\t268435456
"""


def test_counters_belong_to_their_vcpu() -> None:
    """Each counter is found under its processor and description; memory is the guest's as a whole."""
    assert parse_stats(TEXT) == Vcpus(
        {
            ("0", "number of ticks vcpu was idle"): 1234,
            ("0", "vm exits due to external interrupt"): 7,
            ("1", "vm exits due to external interrupt"): 9,
        },
        {"resident": 268435456, "wired": 0},
    )


def test_other_text_is_no_counter() -> None:
    """Errors and headings are passed over."""
    assert parse_stats("errno = 6\nvcpu stats\n\tx\nfoo\tbar\n") == Vcpus()


def test_a_number_that_no_counter_holds_is_none() -> None:
    """They have 64 bits; what is longer is not even read."""
    assert parse_stats("vcpu0 stats:\nvm exits\t18446744073709551615\n").counts == {("0", "vm exits"): 2**64 - 1}
    assert parse_stats("vcpu0 stats:\nvm exits\t" + "9" * 5000).counts == {}
