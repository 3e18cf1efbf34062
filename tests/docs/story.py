"""Runs the blocks of a page in order, in one folder, with one shell and one Python namespace."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from pages import ROOT, Block
from serving import free_port
from shown import Shown

from llmling.errors import ManifestError
from llmling.manifest import load

PATIENCE_S = 60.0
# Commands that only look: they are repeated until they show what the page shows, as a reader would do.
_LOOKS = re.compile(r"^(cat|ls|head|llmling events (list|show)|curl (-s )?http\S+$)")
# `make serve` installs first and then runs this.
_SAME = {"make serve": "llmling serve agents.yml &"}


class Story:
    """One page being read; `close` ends what it started."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self._log = folder.parent / "serve.log"
        self._patch = patch
        self._shown = Shown()
        self._ports = {port: str(free_port()) for port in ("8000", "8001")}
        self._names: dict[str, Any] = {"__name__": "__main__"}
        self._printed: str | None = None
        self._served = 0
        self._runner = asyncio.Runner()
        self._modules = set(sys.modules)
        tools = folder.parent / "bin"
        tools.mkdir()
        _script(tools / "llmling", f'exec "{sys.executable}" -m llmling_cli "$@"')
        _script(tools / "python", f'exec "{sys.executable}" "$@"')
        if shutil.which("curl") is None:
            _script(tools / "curl", f'exec "{sys.executable}" "{Path(__file__).with_name("curl.py")}" "$@"')
        environment = {
            "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(folder.parent),
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "cli")]),
            "OLLAMA_API_BASE": "http://127.0.0.1:9",
            "NO_COLOR": "1",
        }
        for name in [name for name in os.environ if name.endswith(("_API_KEY", "_BASE_URL", "_API_BASE"))]:
            patch.delenv(name)
        for name, value in environment.items():
            patch.setenv(name, value)
        patch.chdir(folder)
        patch.setattr(sys, "path", [str(folder), *sys.path])
        self._shell = subprocess.Popen(
            ["bash", "--norc", "--noprofile"],
            cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            start_new_session=True,
        )  # fmt: skip
        self._type("set -m")

    def close(self) -> None:
        """End the shell and everything it started."""
        self._runner.close()
        started = psutil.Process(self._shell.pid).children(recursive=True)
        for process in started:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGTERM)
        psutil.wait_procs(started, timeout=5)
        for process in started:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._shell.kill()
        self._shell.communicate()
        for name in set(sys.modules) - self._modules:
            if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(self.folder)):
                del sys.modules[name]

    def read(self, blocks: list[Block]) -> None:
        """Run or check the blocks of a page.

        Raises:
            AssertionError: One does not do what the page says.
        """
        for block in blocks:
            if "not run" not in block.directives:
                self._take(block)
        assert not self._printed, "the last Python block prints what the page does not show"

    def _take(self, block: Block) -> None:
        if self._printed and "prints" not in block.directives and block.language != "output":
            raise AssertionError(f"line {block.line}: the block before prints what the page does not show")
        name = block.directives.get("file")
        if name is not None:
            self._write(name, block)
        match block.language:
            case "yaml":
                self._manifest(block, name)
            case "json":
                json.loads(block.text)
            case "python" if name is None:
                self._python(block)
            case "python":
                ast.parse(block.text)
            case "console":
                for command, shown in block.commands:
                    self._console(block.line, command, shown)
            case "output" | "text" if block.language == "output" or "prints" in block.directives:
                self._compare(block)
            case _ if "serve prints" in block.directives:
                self._serve_prints(block.line, block.text)
            case _:
                assert name is not None, f"line {block.line}: nothing is done with this {block.language} block"

    def clone(self, *names: str) -> None:
        """Put files and folders of the repository into the folder, as a fresh clone has them."""
        for name in names:
            source, target = ROOT / name, self.folder / name
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            elif source.exists():
                target.write_text(self._with_ports(source.read_text(encoding="utf-8")), encoding="utf-8")

    # --- files -----------------------------------------------------------------------------------------------------

    def _write(self, name: str, block: Block) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self._with_ports(block.text), encoding="utf-8")

    def _with_ports(self, text: str) -> str:
        for port, free in self._ports.items():
            text = re.sub(rf"\b{port}\b", free, text)
        return text

    def _manifest(self, block: Block, name: str | None) -> None:
        if re.search(r"^agents:", block.text, re.MULTILINE) is None:
            assert name is not None, f"line {block.line}: no whole manifest and no file, so nothing can be checked"
            yaml.safe_load(block.text)
            return
        if name is None:
            self._write(name := "agents.yml", block)
        if "refused" in block.directives:
            with pytest.raises(ManifestError):
                load(name)
        else:
            load(name)

    # --- Python ----------------------------------------------------------------------------------------------------

    def _python(self, block: Block) -> None:
        # Padding gives tracebacks the line of the page.
        source = "\n" * block.line + self._shown.here(self._with_ports(block.text))
        code = compile(source, "page", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            if code.co_flags & inspect.CO_COROUTINE:
                self._runner.run(eval(code, self._names))
            else:
                exec(code, self._names)
        self._printed = output.getvalue()

    def _compare(self, block: Block) -> None:
        printed, self._printed = self._printed, None
        assert printed is not None, f"line {block.line}: there is no Python block that prints this"
        self._check(block.line, block.text, printed)

    def _check(self, line: int, shown: str, printed: str) -> None:
        if not self._shown.matches(self._with_ports(shown), printed):
            raise AssertionError(f"line {line}: the page shows\n\n{shown}\nbut this is printed\n\n{printed}")

    # --- console ---------------------------------------------------------------------------------------------------

    def _type(self, line: str) -> None:
        assert self._shell.stdin is not None
        self._shell.stdin.write(f"{line}\n")
        self._shell.stdin.flush()

    def _console(self, line: int, command: str, shown: str) -> None:
        command = self._shown.here(self._with_ports(_SAME.get(command.partition("  #")[0].rstrip(), command)))
        if export := re.fullmatch(r"export (\w+)=(.*)", command):
            self._patch.setenv(export[1], export[2])
        if command.endswith(" &"):
            self._served = 0
            self._log.unlink(missing_ok=True)  # what an earlier process printed
            self._shown.forget_server()
            self._type(f"{command.removesuffix(' &')} >'{self._log}' 2>&1 </dev/null &")
            self._serve_prints(line, shown or "...\nready in ...\n...")
            self._shown.learn_server(self._log.read_text(encoding="utf-8"))
            if not shown:
                self._served = 0  # the page may show it later
            return
        if command.startswith("kill "):
            self._type(command)
            if shown:
                self._serve_prints(line, shown)
            # A shell that shows no prompt keeps the number of a job until somebody asks for its jobs.
            self._call("wait; jobs")
            return
        deadline = time.monotonic() + PATIENCE_S
        while True:
            printed = self._call(command)
            if not _LOOKS.match(command) or time.monotonic() > deadline:
                break
            if self._shown.matches(self._with_ports(shown), printed):
                return
            time.sleep(0.1)
        self._check(line, shown, printed)

    def _call(self, command: str) -> str:
        assert self._shell.stdout is not None
        out = self.folder.parent / "printed"
        self._type(f"{{ {command}\n}} >'{out}' 2>&1 </dev/null; echo done")
        assert self._shell.stdout.readline() == "done\n", f"the shell ended in: {command}"
        return out.read_text(encoding="utf-8")

    def _serve_prints(self, line: int, shown: str) -> None:
        """Wait until the serving process has printed what the page shows, beyond what was shown before."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            whole = self._log.read_text(encoding="utf-8") if self._log.exists() else ""
            if whole.endswith("\n") and self._shown.matches(self._with_ports(shown), whole[self._served :]):
                self._served = len(whole)
                return
            if time.monotonic() > deadline:
                self._check(line, shown, whole[self._served :])
                return
            time.sleep(0.05)


def _script(path: Path, line: str) -> None:
    path.write_text(f"#!/bin/sh\n{line}\n", encoding="utf-8")
    path.chmod(0o755)
