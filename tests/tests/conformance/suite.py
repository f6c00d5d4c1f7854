# Runs a test suite that is not ours, and writes `{"test": "outcome"}` for all of it.
# Words: where to write, `unittest` or `pytest`, then modules, or pytest's own words.
import json, os, sys

outcomes = {}


def by_unittest(modules):
    import logging, unittest

    # As tornado's own runner has it: its tests hold each line that is logged to be unexpected.
    logging.getLogger("tornado.access").setLevel(logging.CRITICAL)

    class Result(unittest.TextTestResult):
        def stopTest(self, test):
            outcomes.setdefault(test.id(), "passed")
            super().stopTest(test)

        def addError(self, test, err):
            outcomes[test.id()] = "error"
            super().addError(test, err)

        def addFailure(self, test, err):
            outcomes[test.id()] = "failed"
            super().addFailure(test, err)

        def addSubTest(self, test, subtest, err):
            if err is not None:
                outcomes[test.id()] = "failed"
            super().addSubTest(test, subtest, err)

        def addSkip(self, test, reason):
            outcomes[test.id()] = "skipped"
            super().addSkip(test, reason)

        def addExpectedFailure(self, test, err):
            outcomes[test.id()] = "failed as expected"
            super().addExpectedFailure(test, err)

    suite = unittest.defaultTestLoader.loadTestsFromNames(modules)
    unittest.TextTestRunner(resultclass=Result, verbosity=1).run(suite)


def by_pytest(words):
    import pytest

    class Plugin:
        def pytest_runtest_logreport(self, report):
            if report.failed:
                outcomes[report.nodeid] = "failed"
            else:
                outcomes.setdefault(report.nodeid, report.outcome)

    pytest.main(["-q", "-p", "no:cacheprovider", *words], plugins=[Plugin()])


where, kind, *words = sys.argv[1:]
{"unittest": by_unittest, "pytest": by_pytest}[kind](words)
with open(where, "w") as file:
    json.dump(outcomes, file, sort_keys=True)
# A server of a test that has failed may be left, and waits for ever.
sys.stdout.flush()
os._exit(0)
