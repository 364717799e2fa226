from __future__ import annotations

from adapters.redaction import STRUCK_OUT, Redactor


def test_of_many_tokens_the_latest_are_redacted_and_every_secret() -> None:
    """A command may print another token for each connection of a run that goes on for weeks."""
    redact = Redactor(["the-secret"])
    tokens = [f"token-{number:05}-end" for number in range(1000)]
    for token in tokens:
        redact.add_token(token)
        redact.add_token(token)
    assert redact(f"{tokens[-1]} {tokens[-100]} the-secret") == " ".join([STRUCK_OUT] * 3)
    assert redact(tokens[0]) == tokens[0]
    redact.add(["another"])
    assert redact(f"another {tokens[-1]}") == f"{STRUCK_OUT} {STRUCK_OUT}"


def test_an_empty_token_redacts_nothing() -> None:
    redact = Redactor()
    redact.add_token("")
    assert redact("as it is") == "as it is"
