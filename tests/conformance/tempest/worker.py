"""Runs tests of tempest and of its plugins, a class at a time.

Reads one JSON value a line: {"class": "module.Class", "tests": ["test_a", ...]}. Answers one line a test
({"test", "outcome", "reason", "trace"}) and then {"end": "module.Class"}. Outcomes are pass, fail and skip. What happens to
a class as a whole happens to each of its tests. TEMPEST_CONFIG_DIR and TEMPEST_CONFIG say where the configuration is.
"""

import importlib
import json
import os
import sys
import traceback
import unittest

from tempest.test_discover import plugins

# What the suites print must not stand between the answers.
ANSWERS = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)
TRACE_CHARACTERS_MAX = 8000


def name_of(test):
    """A test's name without its attributes in brackets."""
    return test.id().split("[")[0]


def told(err, details):
    """The text of a failure, in either of the two forms that unittest and testtools give it."""
    if details:
        return "\n".join(c.as_text() for k, c in sorted(details.items()) if k.startswith("traceback"))
    if isinstance(err, tuple):
        return "".join(traceback.format_exception(*err))
    return str(err)


class Outcomes(unittest.TestResult):
    """The outcome of each test, and of the class as a whole."""

    def __init__(self):
        super().__init__()
        self.tests = {}
        self.whole = None

    def note(self, test, outcome, reason="", trace=""):
        entry = {"outcome": outcome, "reason": reason, "trace": trace[-TRACE_CHARACTERS_MAX:]}
        if isinstance(test, unittest.TestCase):
            # A test that failed has failed, whatever its clean-up says.
            self.tests.setdefault(name_of(test), entry)
        elif self.whole is None:
            self.whole = entry

    def addSuccess(self, test, details=None):
        self.note(test, "pass")

    def addError(self, test, err=None, details=None):
        text = told(err, details)
        lines = [line for line in text.splitlines() if line.strip()]
        self.note(test, "fail", lines[-1].strip() if lines else "", text)

    addFailure = addError

    def addSkip(self, test, reason=None, details=None):
        if reason is None and details and "reason" in details:
            reason = details["reason"].as_text()
        self.note(test, "skip", (reason or "").strip())

    def addExpectedFailure(self, test, err=None, details=None):
        self.note(test, "pass")

    def addUnexpectedSuccess(self, test, details=None):
        self.note(test, "fail", "it was expected to fail")


def tests_of(suite):
    for part in suite:
        if isinstance(part, unittest.TestSuite):
            yield from tests_of(part)
        else:
            yield part


def run(name, wanted):
    """The outcomes of these tests of a class, by name."""
    outcomes = Outcomes()
    try:
        module = importlib.import_module(name.rpartition(".")[0])
        every = tests_of(unittest.TestLoader().loadTestsFromModule(module))
        chosen = [test for test in every if name_of(test) in wanted]
        unittest.TestSuite(chosen).run(outcomes)
    except BaseException:
        outcomes.addError(None, sys.exc_info())
    whole = outcomes.whole or {"outcome": "fail", "reason": "there is no such test", "trace": ""}
    return {test: outcomes.tests.get(test, whole) for test in wanted}


plugins.TempestTestPluginManager()
for line in sys.stdin:
    order = json.loads(line)
    wanted = [f"{order['class']}.{test}" for test in order["tests"]]
    for test, entry in run(order["class"], wanted).items():
        ANSWERS.write(json.dumps({"test": test, **entry}) + "\n")
    ANSWERS.write(json.dumps({"end": order["class"]}) + "\n")
