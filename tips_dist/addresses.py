"""Addresses of data and of copies of run folders: checked before they are used, redacted before they are shown.

An address goes into records, errors, reports, job packages and the list of processes, so nothing secret may stand in
it. Credentials come from the environment, a named profile or the machine's role, never from an address.
"""

from __future__ import annotations

import re
from urllib.parse import SplitResult, parse_qsl, urlsplit, urlunsplit

from tips_dist.files import UserError

# What pyarrow takes behind the question mark, none of it secret. Whatever else stands there is refused: tokens and
# signatures have too many names (sig, sas, token, X-Amz-Signature, AWSAccessKeyId …) to list those.
OPTIONS = {
    "s3": """allow_bucket_creation allow_bucket_deletion allow_delayed_open background_writes endpoint_override
        check_directory_existence_before_creation force_virtual_addressing region scheme""",
    "gs": "endpoint_override project_id retry_limit_seconds scheme",
    "abfs": """background_writes blob_storage_authority blob_storage_scheme dfs_storage_authority dfs_storage_scheme
        enable_tls""",
    "hdfs": "buffer_size default_block_size replication user",
    "file": "use_mmap",
}
OPTIONS["gcs"], OPTIONS["abfss"] = OPTIONS["gs"], OPTIONS["abfs"]
_USER_IS_PLACE = ("abfs", "abfss", "wasb", "wasbs")  # CONTAINER@ACCOUNT
_USER_ALONE = ("hdfs", "sftp", "ssh", "smb")  # a login name, without which the place is not found
_FORM = re.compile(r"[a-z][a-z0-9+.-]*://\S+")
_INSTEAD = "give credentials by the environment, a named profile or the machine's role"


def is_address(text: str) -> bool:
    """Whether this names something at an address, not a local path."""
    return "://" in text


def check_address(text: str, where: str = "") -> SplitResult:
    """The parts of an address in which nothing secret stands.

    Args:
        text: the address.
        where: what to say before it in an error, such as ``--storage``.

    Raises:
        UserError: it is no address, or holds credentials or something that may be; it is shown redacted.
    """
    said = f"{where} {redacted(text)}".strip()
    try:
        parts = urlsplit(text)
        user, password, _ = parts.username, parts.password, parts.port
    except ValueError as error:
        raise UserError(f"{said}: not an address ({error})") from None
    if not _FORM.fullmatch(text) or not text.isprintable() or "::" in text.partition("[")[0]:
        raise UserError(f"{said}: not an address of the form SCHEME://PLACE/PATH")
    if password is not None or (user is not None and parts.scheme not in (*_USER_IS_PLACE, *_USER_ALONE)):
        raise UserError(f"{said}: credentials in an address are refused; {_INSTEAD}")
    options = parse_qsl(parts.query, keep_blank_values=True)
    known = OPTIONS.get(parts.scheme, "").split()
    if any(name not in known or "@" in value for name, value in options) or (parts.query and not options):
        raise UserError(f"{said}: what stands behind the question mark may be a credential; {_INSTEAD}")
    if "://" in parts.path:
        raise UserError(f"{said}: an address within an address; {_INSTEAD}")
    if parts.fragment:
        raise UserError(f"{said}: nothing may stand behind a #; {_INSTEAD}")
    return parts


def redacted(text: str) -> str:
    """An address as it may be shown: scheme, place and path; user, password, options and fragment left out."""
    try:
        parts = urlsplit(text)
        place = parts.netloc.rpartition("@")[2]
        kept = parts.netloc if parts.scheme in _USER_IS_PLACE and ":" not in parts.netloc else place
        hidden = "…@" if kept == place and "@" in parts.netloc else ""
        bare = urlunsplit(parts._replace(netloc="", query="", fragment="")).partition(":")[2]
        return f"{parts.scheme}://{hidden}{kept}{_masked(bare.removeprefix('//'))}"
    except ValueError:
        return _masked(text.partition("?")[0])


_SECRETS = re.compile(r"(?<=//)[^/\s@'\"]+@|(?<=[?&#])[^\s'\")]+")


def _masked(text: str) -> str:
    return _SECRETS.sub(lambda found: "…@" if found[0].endswith("@") else "…", text)


def without_secrets(text: str) -> str:
    """A message of somebody else, in which addresses may stand, with their users, passwords and options left out."""
    return _masked(text) if "://" in text else text
