"""Start weights of the backbones: a local file, or a repository of the Hugging Face hub; the one door to the hub."""

import re
from pathlib import Path

from base.errors import InputError

FILE = "model.safetensors"
FILE_ENDINGS = (".pth", ".pt", ".bin", ".safetensors")
TIMEOUT = 5.0  # seconds that the hub has for a first answer


class PretrainedError(InputError):
    """Start weights that cannot be found; names the source, the finding, the file to fetch and the parameter."""


def find_pretrained(source: str) -> Path:
    """The local file of `source`: its path, or a hub id `owner/name` or `owner/name@revision`, fetched once.

    What the hub's local cache holds is taken as it is, so that a run gives the same on every start, and offline; a
    revision (commit, tag or branch) pins what is fetched.
    Raises PretrainedError where there is no such file, or the hub does not give it.
    """
    path = Path(source)
    if path.is_file():
        return path
    if source.endswith(FILE_ENDINGS) or source.startswith((".", "/")):
        finding = "is a folder" if path.is_dir() else "is not there"
        raise PretrainedError(f"{source}: {finding}, expected a weight file. Set train.pretrained to the file's path.")
    match = re.fullmatch(r"([\w.-]+/[\w.-]+)(?:@(\S+))?", source)
    if match is None:
        raise PretrainedError(
            f"{source!r}: is neither a file nor a hub id, expected PATH, owner/name or owner/name@revision. "
            "Set train.pretrained to one of these."
        )
    return _fetch(source, match[1], match[2])


def _fetch(source: str, repository: str, revision: str | None) -> Path:
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    url = f"https://huggingface.co/{repository}/resolve/{revision or 'main'}/{FILE}"
    try:
        try:
            return Path(hf_hub_download(repository, FILE, revision=revision, local_files_only=True))
        except LocalEntryNotFoundError:
            pass
        # Asked once by hand: hf_hub_download would repeat a failed question for 23 seconds.
        get_hf_file_metadata(hf_hub_url(repository, FILE, revision=revision), timeout=TIMEOUT)
        return Path(hf_hub_download(repository, FILE, revision=revision, etag_timeout=TIMEOUT))
    except HFValidationError as error:
        raise PretrainedError(
            f"{source!r}: is neither a file nor a hub id ({_line(error)}). Set train.pretrained to a path, owner/name "
            "or owner/name@revision."
        ) from error
    except Exception as error:  # network, proxy, server and disk each raise a family of their own, with one remedy
        if isinstance(error, RepositoryNotFoundError):
            finding = "the hub has no such repository, or it is not public"
        elif isinstance(error, RevisionNotFoundError):
            finding = f"the repository has no revision {revision}"
        elif isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
            finding = f"the repository has no {FILE}"
        else:
            finding = f"the hub cannot be reached or its answer not stored: {_line(error)}"
        raise PretrainedError(
            f"{source}: {finding}. Fetch {url} where the internet can be reached and set train.pretrained to the "
            "path of the file."
        ) from error


def _line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
