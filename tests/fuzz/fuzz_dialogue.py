"""Coverage-guided fuzzing of the dialogue, with atheris.

    python tests/fuzz/fuzz_dialogue.py -max_total_time=1800 -dict=tests/fuzz/smtp.dict CORPUS

where CORPUS is a copy of ``tests/fuzz/corpus``, which it adds to.

Needs atheris, and ``sensor``, ``common`` and ``tests`` on PYTHONPATH. The first two octets
of an input choose the rules and the cuts; the rest is the stream.
"""

import sys

import atheris

# pyright: reportAttributeAccessIssue=false
# atheris publishes no types.
with atheris.instrument_imports(include=["smtpfeeds_sensor"]):
    from fuzz.dialogue_promises import check, split_input


def one_input(octets: bytes) -> None:
    """Check the promises for one input."""
    rules, cuts, stream = split_input(octets)
    check(stream, cuts, rules)


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
