"""Generates the Python of the contracts, or checks that the committed code is what they generate.

Runs from the repository's root, so that a proto's import path is its Python package path and
nothing of ours is rewritten. Every proto gets messages and their stubs; one that has a service gets
its gRPC code too. The protos below ``vendor`` are imported by their own names, and their Python goes below
``protos``, so that no top-level package of another's name is ours.

    python scripts/protos.py generate
    python scripts/protos.py check      ends with 1 and names each file that is missing, stale or left over
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROTOS = "protos"
VENDOR = "vendor"
_SERVICE = re.compile(r"^service\s+\w+", re.MULTILINE)
_GENERATED = ("*_pb2.py", "*_pb2.pyi", "*_pb2_grpc.py", "*_pb2_grpc.pyi")


def compile_protos(target: Path) -> None:
    """Writes the generated code of all protos below ``target``.

    Raises:
        subprocess.CalledProcessError: the compiler refused a proto; it has said why.
    """
    files = sorted((ROOT / PROTOS).rglob("*.proto"))
    names = [path.relative_to(ROOT).as_posix() for path in files]
    services = [
        name for name, path in zip(names, files, strict=True) if _SERVICE.search(path.read_text("utf-8"))
    ]
    vendored = sorted(path.relative_to(ROOT / VENDOR) for path in (ROOT / VENDOR).rglob("*.proto"))
    names_of_others = [path.as_posix() for path in vendored]
    _protoc([f"--python_out={target}", f"--mypy_out=quiet:{target}"], [*names, *names_of_others])
    _protoc([f"--grpc_python_out={target}", f"--mypy_grpc_out=quiet:{target}"], services)
    _move_below_protos(target, vendored)


def _move_below_protos(target: Path, vendored: list[Path]) -> None:
    """Puts the Python of vendored protos in its place, and has the generated code import it from there."""
    for top in {path.parts[0] for path in vendored}:
        shutil.move(target / top, target / PROTOS / top)
    tops = "|".join(sorted({re.escape(path.parts[0]) for path in vendored}))
    imports = re.compile(rf"^from ((?:{tops})\.\S+ import )", re.MULTILINE)
    for path in (target / PROTOS).rglob("*_pb2*.py"):
        text = path.read_text("utf-8")
        path.write_text(imports.sub(rf"from {PROTOS}.\1", text), "utf-8")


def differences(fresh: Path, committed: Path) -> dict[str, str]:
    """What is wrong with each committed file that a fresh generation does not give just so."""
    new, old = _generated(fresh), _generated(committed)
    found = dict.fromkeys(new.keys() - old.keys(), "missing")
    found |= dict.fromkeys(old.keys() - new.keys(), "left over, no proto makes it")
    found |= {name: "stale" for name in new.keys() & old.keys() if new[name] != old[name]}
    return dict(sorted(found.items()))


def _generated(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for pattern in _GENERATED
        for path in (root / PROTOS).rglob(pattern)
    }


def _protoc(outputs: list[str], names: list[str]) -> None:
    if not names:
        return
    # The compiler looks its plugins up on PATH; those of this environment come first.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", "-I.", f"-I{VENDOR}", *outputs, *names],
        cwd=ROOT,
        env={**os.environ, "PATH": path},
        check=True,
    )


def _generate(fresh: Path) -> int:
    changed = differences(fresh, ROOT)
    for name in changed:
        (ROOT / name).unlink(missing_ok=True)
        if (fresh / name).exists():
            shutil.copyfile(fresh / name, ROOT / name)
        print(f"{'wrote' if (ROOT / name).exists() else 'removed'} {name}")
    print(f"Generated: {len(changed)} files changed.")
    return 0


def _check(fresh: Path) -> int:
    wrong = differences(fresh, ROOT)
    for name, what in wrong.items():
        print(f"{what}: {name}")
    if wrong:
        print(
            f"error: {len(wrong)} generated files differ from a fresh generation: run make protos, commit them"
        )
        return 1
    print("The generated code is what the protos generate.")
    return 0


def main(arguments: list[str]) -> int:
    """Carries out one of the two commands, and gives the exit code."""
    commands = {"generate": _generate, "check": _check}
    if len(arguments) != 1 or arguments[0] not in commands:
        print((__doc__ or "").strip())
        return 2
    with tempfile.TemporaryDirectory(prefix="zephyr-protos-") as folder:
        try:
            compile_protos(Path(folder))
        except subprocess.CalledProcessError as exc:
            print(
                f"error: the protos do not compile (protoc ended with {exc.returncode}): see the lines above"
            )
            return 1
        return commands[arguments[0]](Path(folder))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
