"""The formats of key life stand still: today's code reads yesterday's bytes and writes the same ones."""

from __future__ import annotations

import pytest

from pumpdeck_fleet.core import canonical
from pumpdeck_packaging.enrolment import FORM_MAX_BYTES, FORM_PAYLOAD_TYPE, EnrolForm, check_answer
from pumpdeck_packaging.signing import verify_dsse
from pumpdeck_packaging.trust_proposal import lacks, parse_proposal
from support.golden_keys import AGE_KEY, GOLDEN, golden_files
from support.golden_trust import seeded_keys

NAMES = ["enrol-answer.dsse.json", "enrol-form.dsse.json", "holders.json", "proposal.json"]
OLD_ANSWER = "enrol-answer-without-age.dsse.json"


@pytest.mark.parametrize("name", NAMES)
def test_the_same_bytes_are_written_today(name: str) -> None:
    assert golden_files()[name] == (GOLDEN / name).read_bytes()


def test_there_is_a_golden_file_for_everything_that_is_written() -> None:
    assert sorted(golden_files()) == NAMES == sorted(path.name for path in GOLDEN.iterdir() if path.name != OLD_ANSWER)


def test_a_golden_proposal_is_read_and_still_lacks_what_it_lacked() -> None:
    proposal = parse_proposal((GOLDEN / "proposal.json").read_bytes())
    assert [(lack.role, lack.has, lack.needs) for lack in lacks(proposal)] == [("root", 1, 2), ("targets", 0, 1)]


@pytest.mark.parametrize(("name", "age_key"), [("enrol-answer.dsse.json", AGE_KEY), (OLD_ANSWER, "")])
def test_a_golden_answer_is_believed(name: str, age_key: str) -> None:
    """The one without an age key is what agents wrote before there was one."""
    laptop = seeded_keys().laptops[0]
    envelope = (GOLDEN / "enrol-form.dsse.json").read_bytes()
    payload = verify_dsse(envelope, FORM_PAYLOAD_TYPE, {laptop.key_id: laptop.public_pem}, FORM_MAX_BYTES)
    form = canonical.decode(EnrolForm, payload, "form", max_bytes=FORM_MAX_BYTES)
    answer = check_answer((GOLDEN / name).read_bytes(), envelope, form)
    assert (answer.device, answer.host_keys, answer.age_key) == ("gannet-d1", ("ssh-ed25519 AAAA",), age_key)
