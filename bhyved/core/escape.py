"""The `~.` of cu(1): what a person types becomes keystrokes for the guest, or a wish to the client.

The escape character counts only as the first of a line, that is after Return, Newline or at the very beginning; typed twice it is sent
once.
"""

from enum import Enum


class Wish(Enum):
    """What the person at the terminal wants of the client, not of the guest."""

    LEAVE = "leave"
    HELP = "help"
    BREAK = "break"
    SUSPEND = "suspend"
    WRITE = "take the keyboard"


_WISHES = {b".": Wish.LEAVE, b"?": Wish.HELP, b"#": Wish.BREAK, b"\x1a": Wish.SUSPEND, b"w": Wish.WRITE}


class Escape:
    """Feed it what was typed. `character` empty: everything goes to the guest, as a script wants it."""

    def __init__(self, character: bytes = b"~") -> None:
        if len(character) > 1:
            raise ValueError("the escape character must be a single one")
        self._character = character
        self._line_start = True
        self._held = False  # an escape character that waits for what follows

    @property
    def character(self) -> bytes:
        return self._character

    def feed(self, typed: bytes) -> list[bytes | Wish]:
        """Keystrokes and wishes in the order they were typed."""
        if not self._character:
            return [typed] if typed else []
        out: list[bytes | Wish] = []
        keys = bytearray()
        for number in typed:
            key = bytes((number,))
            if self._held:
                self._held = False
                wish = _WISHES.get(key)
                if wish is not None:
                    if keys:
                        out.append(bytes(keys))
                        keys.clear()
                    out.append(wish)
                    self._line_start = True  # the guest saw nothing of it
                    continue
                keys += key if key == self._character else self._character + key
            elif self._line_start and key == self._character:
                self._held = True
                continue
            else:
                keys += key
            self._line_start = key in b"\r\n"
        if keys:
            out.append(bytes(keys))
        return out


def help_text(character: str) -> str:
    """What `~?` shows."""
    rows = (
        (".", "leave; the guest runs on and is still recorded"),
        ("w", "take the keyboard from whoever has it"),
        ("^Z", "suspend this client"),
        ("#", "no break can be sent; vmctl nmi may do what it was for"),
        ("?", "this text"),
        (character, "send the escape character itself"),
    )
    return "\n".join(["after Return:", *(f"  {character}{key:<3} {text}" for key, text in rows)])
