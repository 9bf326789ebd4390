"""A browser for the tests of this folder; without one they are skipped, unless ``OSTINATO_TEST_BROWSER=required``."""

import os

import pytest

from tests.browser import devtools
from tests.support import example_records

REQUIRED = os.environ.get("OSTINATO_TEST_BROWSER") == "required"  # read before the environment of each test is cleaned


@pytest.fixture(scope="session")
def browser():
    command = devtools.executable()
    if command is None and not REQUIRED:
        pytest.skip("there is no chromium or google-chrome on PATH")
    assert command is not None, "OSTINATO_TEST_BROWSER=required, and there is no chromium or google-chrome on PATH"
    with devtools.running(command) as address:
        yield address


@pytest.fixture
async def tab(browser):
    """Open an empty page. After the test, check that the page logged no errors and requested nothing but itself."""
    async with devtools.tab_of(browser) as tab:
        yield tab
        assert tab.complaints == []
        assert [url.partition("#")[0] for url in tab.requests if not url.startswith(("about:", "data:"))] == tab.opened


@pytest.fixture(scope="session")
def sweep_page(tmp_path_factory):
    """Write the report of a sweep of 2 models × 4 temperatures."""
    from runner.reports import report

    return report(example_records.sweep(tmp_path_factory.mktemp("sweep")))


@pytest.fixture(scope="session")
def long_page(tmp_path_factory):
    """Write the report of a run of 10,000 long answers."""
    from runner.reports import report

    return report(example_records.long_answers(tmp_path_factory.mktemp("long")))
