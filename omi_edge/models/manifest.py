"""What models there are: manifest.toml of the package, and what the owner adds in models.toml of the models folder."""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta

from omi_edge.errors import ConfigError, NotFound
from omi_edge.validation import explained

OWN_NAME = "models.toml"
"""The owner's additions, in the models folder."""
_SHIPPED = Path(__file__).with_name("manifest.toml")

ModelName = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9.\-]{0,63}\Z")]
FileName = Annotated[
    str, Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.\-]*(/[A-Za-z0-9_][A-Za-z0-9_.\-]*){0,3}\Z", max_length=200)
]
"""A relative path without anything that could lead out of a folder, or be hidden in it."""
Sha256 = Annotated[str, Meta(pattern=r"^([0-9a-f]{64})?\Z")]
Revision = Annotated[str, Meta(pattern=r"^([0-9a-f]{40})?\Z")]
"""A commit of the hub's git repository."""
Repository = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.\-]*/[A-Za-z0-9][A-Za-z0-9_.\-]*\Z")]
T = TypeVar("T")
Kind = Literal["asr", "diarization", "llm", "embedding"]


class ModelFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file of a model: its path in the repository, bytes (0: not known), SHA-256 ("": not known)."""

    name: FileName
    size: Annotated[int, Meta(ge=0)] = 0
    sha256: Sha256 = ""


class Model(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One model. ``revision`` "" is unknown until the first pull; ``memory`` is bytes when loaded, 0: not measured."""

    name: ModelName
    kind: Kind
    format: str
    repository: Repository
    good_for: str
    files: Annotated[tuple[ModelFile, ...], Meta(min_length=1, max_length=1000)]
    revision: Revision = ""
    licence: str = ""
    token: bool = False
    memory: Annotated[int, Meta(ge=0)] = 0

    @property
    def size(self) -> int | None:
        """Bytes of all files, None when one is not known."""
        sizes = [file.size for file in self.files]
        return sum(sizes) if all(sizes) else None

    @property
    def pinned(self) -> bool:
        """Whether revision, sizes and hashes are all known before the first pull."""
        return bool(self.revision) and all(file.size and file.sha256 for file in self.files)

    def at(self, revision: str) -> Model:
        """Return the same model of another revision, of whose files nothing is known but their names."""
        return msgspec.structs.replace(
            self, revision=revision, files=tuple(ModelFile(file.name) for file in self.files)
        )


class Profile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The models that suit one kind of machine."""

    name: str
    about: str
    models: tuple[str, ...]


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All models and profiles, in the order of the file."""

    model: tuple[Model, ...] = ()
    profile: tuple[Profile, ...] = ()

    def find(self, name: str) -> Model:
        """Return the model called ``name``. Raises NotFound, which names the nearest."""
        return _found(name, {model.name: model for model in self.model}, "model", "omi-edge models list")

    def find_profile(self, name: str) -> Profile:
        """Return the profile called ``name``. Raises NotFound, which names the nearest."""
        return _found(name, {profile.name: profile for profile in self.profile}, "profile", "omi-edge models recommend")


def load(folder: Path) -> Manifest:
    """Return what ships with the package and what ``folder``/models.toml adds.

    Raises ConfigError for an addition that cannot be read, or that takes a name that is there already.
    """
    shipped = _read(_SHIPPED)
    own = folder / OWN_NAME
    if not own.is_file():
        return shipped
    added = _read(own)
    names = [model.name for model in (*shipped.model, *added.model)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"{own}: the name {twice[0]} is there already; give your model another one.")
    return Manifest((*shipped.model, *added.model), (*added.profile, *shipped.profile))


def _read(path: Path) -> Manifest:
    try:
        return msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), Manifest)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}.") from error
    except msgspec.ValidationError as error:
        key, wanted = explained(error)
        raise ConfigError(f"{path}: {key or 'an entry'} must be {wanted}; docs/models.md shows the form.") from error


def _found(name: str, known: dict[str, T], what: str, command: str) -> T:
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, 1, cutoff=0.4)
    hint = f", did you mean {near[0]}?" if near else "."
    raise NotFound(f"there is no {what} {name[:80]!r}{hint} They are listed by: {command}")
