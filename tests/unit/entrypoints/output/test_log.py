"""Log lines: readable, without secrets, and silent about what other libraries say."""

from __future__ import annotations

import io
import logging
import re
import warnings

import pytest

from entrypoints.output import log


@pytest.fixture
def stream():
    return io.StringIO()


def test_a_line_is_time_level_message(stream):
    log.configure("INFO", stream)
    log.setup_logger("service").info("hello %s", "world")
    pattern = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ INFO    hello world\n"
    assert re.fullmatch(pattern, stream.getvalue())


def test_a_message_is_one_line_whatever_is_named(stream):
    log.configure("INFO", stream)
    log.setup_logger("service").info("%s: 1 rows", "public.two\nlines\x1b[31m")
    assert stream.getvalue().endswith(r"INFO    public.two\nlines\x1b[31m: 1 rows" + "\n")


@pytest.mark.parametrize("secret", ["s3cret-Pa55", "a+b(c", "abc"])
def test_secrets_are_struck_out_of_every_line(secret, stream):
    log.configure("DEBUG", stream)
    log.redact.add([secret])
    logger = log.setup_logger("service")
    logger.info("password %s!", secret)
    try:
        raise ValueError(secret)  # noqa: TRY301
    except ValueError:
        logger.exception("failed")
    assert secret not in stream.getvalue()
    assert "password ***!" in stream.getvalue()


def test_a_short_secret_is_struck_out_as_a_word_only():
    redact = log.Redactor()
    redact.add(["pg", ""])
    assert redact("pg in pgoutput") == "*** in pgoutput"


def test_longest_secret_first():
    redact = log.Redactor()
    redact.add(["secret", "secret-two"])
    assert redact("secret-two secret") == "*** ***"


def test_other_libraries_say_nothing_at_info(stream):
    log.configure("INFO", stream)
    logging.getLogger("databricks.sql.client").error("row (1, 'alice')")
    logging.getLogger("sqlalchemy.engine").info("select 'alice'")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("value 'alice'", stacklevel=1)
    assert stream.getvalue() == ""


def test_other_libraries_leave_their_place_at_debug(stream):
    log.configure("DEBUG", stream)
    logging.getLogger("databricks.sql.client").error("row (1, 'alice')")
    assert "databricks.sql.client logged ERROR at test_log:" in stream.getvalue()
    assert "alice" not in stream.getvalue()


def test_level_holds(stream):
    log.configure("WARNING", stream)
    logger = log.setup_logger("cdc_core.x")
    logger.info("quiet")
    logger.warning("loud")
    assert "quiet" not in stream.getvalue()
    assert "loud" in stream.getvalue()
