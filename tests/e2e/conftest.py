import itertools
import os
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))

from broker import META, Broker  # noqa: E402

_numbers = itertools.count()


@pytest.fixture(scope="session")
def broker():
    """One broker for all tests, with throw-away certificates; tests keep apart by names."""
    with Broker("--dev-tls") as running:
        yield running


@pytest.fixture
def embedded():
    """For tests of what lies in the data folder."""
    if META != "embedded":
        pytest.skip("the metadata is elsewhere")


@pytest.fixture
def fdb():
    """For tests of what is FoundationDB's own."""
    if META != "fdb":
        pytest.skip("the metadata is not in FoundationDB")


@pytest.fixture
def unique():
    """Makes names that no other test uses."""
    return lambda prefix: f"{prefix}-{os.getpid()}-{next(_numbers)}"
