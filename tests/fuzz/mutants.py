"""Every off-by-one change of the compiled data path, and whether anything notices it.

`python -m tests.fuzz.mutants [FILE …]` (`make mutants-native`). In each C file every comparison is made to hold at its
bound, or not to; every number and every named bound is one more, and one less. Each change is built by itself and has
to be found: by the unit tests of `tests/unit/native`, by the same with AddressSanitizer and UBSan, or by the comparison
of both paths. Those that nothing can find stand in `EQUIVALENT`, with the reason. An hour or two; not part of CI.
"""

from __future__ import annotations

import argparse
import itertools
import os
import re
import resource
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from tests.fuzz.test_native_memory import LOADING, ROOT, SANITIZERS, SOURCE, TESTING, UNITS, sanitized

FILES: Final = (
    *("pictures.c", "payloads.c", "sending.c", "hearing.c", "transcoding.c"),
    *("smoother.c", "reading.c", "records.c", "history.c", "blocks.c"),
    *("datagrams.c", "arriving.c", "listening.c", "openssl.c", "avcodec.c"),
)
PLAIN: Final = ("-O1", "-ffp-contract=off")
SECONDS: Final = 300
"""Of CPU time, for all that one change is tried with: some never end."""

EQUIVALENT: Final[dict[str, str]] = {
    "begin_cut: if (payload->size >= work->cut_size - work->cut_used)": "what is there is a part of what came",
    "put_nal: size_t part = size - at <= room ? size - at : room;": "both are the same then",
    "put_nal: uint8_t head[3] = {(uint8_t)((nal[0] & 0xE0) | FU_A), (uint8_t)((nal[0] & 0x1F) | FU_START)};": "unused",
    "recut: if (work->carried > room || 1 + room > sizeof head)": "no path has more room than MOST_PAYLOAD",
    "recut: uint8_t head[(MOST_PAYLOAD + 1)];": "unused",
    "put_all: uint8_t joined[(MOST_PAYLOAD + 1)] = {STAP_A};": "unused",
    "put_all: if ((nal[0] & 0x60) >= (joined[0] & 0x60))": "it is put there again",
    "put_sets: PyObject *kept[3] = {of_sets(work, n__sps), of_sets(work, n__pps)};": "unused",
    "put_sets: int done = kept[1] != NULL && kept[1] != NULL && PyObject_Size(kept[0]) > 0 && "
    "PyObject_Size(kept[1]) > 0;": "a passthrough has both",
    "put_sets: int done = kept[0] != NULL && kept[0] != NULL && PyObject_Size(kept[0]) > 0 && "
    "PyObject_Size(kept[1]) > 0;": "likewise",
    "aggregate: if (size - at <= 2)": "a size without a unit behind it is refused as well",
    "aggregate: if (size - at < 3)": "likewise",
    "has_start_code: for (size_t at = 1; at < size; at++)": "a unit that begins with zero is refused as well",
    "has_start_code: for (size_t at = 3; at < size; at++)": "likewise",
    "begin_fragments: uint8_t nal[3] = {(uint8_t)((at[0] & 0xE0) | (at[1] & 0x1F)), at[2]};": "unused",
    "unit_size: if (size < AU_HEADERS || read16(payload) != AU_HEADER_BITS || payload[3] & 7)": "then there is no unit",
    "packet_ticks: static const int64_t FRAME_TICKS[33] = {": "more room",
    "packet_ticks: return ticks <= (MOST_TICKS + 1) ? ticks : 0;": "all are multiples of 120",
    "pass_opus: return failed ? -2 : 1;": "below zero either way",
    "pass_opus: return failed ? -1 : 2;": "a truth value",
    "hear_bytes: int is_plain = work.size < INT32_MAX && split(&work, lists);": "no wake has two gigabytes",
    "begin_second: if (plain && second[1] <= low_before)": "both are the same then",
    "begin_second: if (plain && second[2] >= high_before)": "likewise",
    "is_even: else if (transit <= OR(low))": "likewise",
    "is_even: else if (transit >= OR(high))": "likewise",
    "is_even: double low = OR(low) <= OR(low_before) ? OR(low) : OR(low_before);": "likewise",
    "is_even: double high = OR(high) >= OR(high_before) ? OR(high) : OR(high_before);": "likewise",
    "begin_second: Py_ssize_t count = seconds == NULL ? -2 : PyObject_Size(seconds);": "below zero either way",
    "begin_second: Py_ssize_t count = seconds == NULL ? -0 : PyObject_Size(seconds);": "the exception is found later",
    "begin_second: double second[4];": "unused",
    "keep_second: return failed ? -2 : 0;": "a truth value",
    "is_pending: int is = pending == NULL ? -2 : PyObject_IsTrue(pending);": "below zero either way",
    "is_due: return PyErr_Occurred() ? -2 : PyFloat_AsDouble(now) >= at;": "likewise",
    "reader_read: if (self->fd <= 0)": "standard input is open, and no connection has its number",
    "reader_read: if (self->fd < 1)": "likewise",
    "receive: return decrypt(self, size, data, done) ? 2 : -2;": "above zero either way",
    "receive: return decrypt(self, size, data, done) ? 1 : -3;": "below -1 either way",
    "receive: return *data == NULL ? -3 : 1;": "likewise",
    "receive: return *data == NULL ? -1 : 1;": "bytes fail to be joined for want of memory alone",
    "receive: return *data == NULL ? -2 : 2;": "above zero either way",
    "receive_rest: if (self->fd <= 0) /* closed by another thread */": "standard input is open",
    "receive_rest: if (self->fd < 1) /* closed by another thread */": "likewise",
    "reader_read: if (came == -1 && done != NULL && self->fd > 0) {": "likewise",
    "reader_read: if (came == -1 && done != NULL && self->fd >= 1) {": "likewise",
    "reader_read: int number = 1, came = receive(self, &data, &number, &done);": "it is read where it was set",
    "receive_rest: self->vain = came ? 0 : self->vain + (self->vain < (MOST_VAIN + 1));": "beyond the bound is as good",
    "receive_rest: self->vain = came ? 0 : self->vain + (self->vain <= MOST_VAIN);": "beyond the bound is as good",
    "find_openssl: int place = openssl.new_index(OF_CONNECTIONS, 1, NULL, note_connection, NULL, NULL);": "unused",
    "find_openssl: return place <= 0 ? -1 : 1;": "OpenSSL's first place is 1",
    "find_openssl: return place < 1 ? -1 : 1;": "likewise",
    "find_openssl: return place < 0 ? -2 : 1;": "below zero either way",
    "find_openssl: return place < 0 ? -0 : 1;": "OpenSSL fails here for want of memory alone",
    "find_openssl: return place < 0 ? -1 : 2;": "above zero either way",
    "watch_tls: if (is_known >= 0)": "it is no longer zero",
    "hear_by: done = sent == NULL ? -2 : 1;": "below zero either way",
    "hear_by: done = sent == NULL ? -1 : 2;": "a truth value",
    "listen_beside: int done = frame == NULL ? -2 : hear_by(ear, pipeline, frame, now);": "below zero either way",
    "listen_beside: int done = frame == NULL ? -0 : hear_by(ear, pipeline, frame, now);": "for want of memory alone",
    ": SPARE = 1,": "how much is kept is nobody's to see",
    ": SPARE = 3,": "likewise",
    "is_as_expected: packet->buffer->data == packet->data && packet->buffer->size > TRIED;": "there is more behind it",
    "is_as_expected: is = avcodec.lay_out(frame, 1, S16P, silence, sizeof silence, 2) == sizeof silence && "
    "frame->data[0] == silence &&": "the size is a multiple of it",
    ": int linesize[7];": "what follows is aligned to where it was",
    "find_avcodec: return is_as_expected() ? 2 : -1;": "above zero either way",
    "find_avcodec: return is_as_expected() ? 1 : -2;": "below zero either way",
    "find_avcodec: return is_as_expected() ? 1 : -0;": "it is looked for again",
    "context_in: Py_ssize_t words = size == NULL ? 1 : PyLong_AsSsize_t(size) / "
    "(Py_ssize_t)sizeof(void *);": "each type has a size",
    "context_in: for (Py_ssize_t index = sizeof(PyObject) / sizeof(void *); found == NULL && index <= words; "
    "index++) {": "nothing that is allocated begins so but a decoder",
    "context_in: int ends[3];": "unused",
    "find_decoder: void *context = is_known >= 0 ? context_in(object) : NULL;": "it is no longer zero",
    "decode_directly: if ((frame->format != packed && frame->format != planar) || frame->data[1] != NULL || "
    "frame->samples < 0 ||": "no frame is empty",
    "decrypt_directly: while ((*pending = openssl.pending(incoming) > 0) && room - at > LONGEST) {": "the Python "
    "takes it",
    "decrypt_directly: int in_record = !read && openssl.error(self->connection, 1) == WANT_READ;": "the Python's read "
    "says so",
    "decrypt: if (self->connection != NULL && (result = decrypt_directly(self, size, data, &pending)) > 1)": "the "
    "Python says the same",
    "decrypt: if (pending >= 0 && !ended && wants_more(self))": "with nothing pending there is no exception",
    "reader_new: if (PyTuple_Size(parts) != READER_PARTS || fd <= 0) {": "standard input is open",
    "reader_new: if (PyTuple_Size(parts) != READER_PARTS || fd < 1) {": "likewise",
    "reader_close: ((Reader *)object)->fd = -2;": "below zero either way",
    "reader_clear: self->fd = -2; /* nothing is read any more */": "likewise",
    "reader_clear: self->fd = -0; /* nothing is read any more */": "nobody is left to call it",
    "reader_traverse: for (int index = 1; index < READER_PARTS; index++)": "a buffer refers to nothing",
    "reader_new: Reader *self = (Reader *)allocate(type, 1); /* all zeros */": "its objects have no items",
    "reader_new: {NULL, NULL, 1, NULL},": "the flags of nothing",
    "add_readers: return failed ? -2 : 0;": "a truth value",
    "add_readers: return failed ? -0 : 0;": "a module fails for want of memory alone",
    "decrypt: int pending = 2, ended = 0, result = 0;": "above zero either way",
    "decrypt: pending = *data == NULL ? -0 : is_pending(self->parts[INCOMING]);": "records fail to be joined for want "
    "of memory alone",
    "decrypt: pending = *data == NULL ? -2 : is_pending(self->parts[INCOMING]);": "below zero either way",
    "keep_run: if (!failed && slot_of(history, f_kept_bytes)->i >= slot_of(history, f_most_kept)->i)": "at the bound "
    "`_shrink` finds nothing to do",
    "forget: int64_t size = is_own ? ((Kept *)oldest)->size : 1;": "unused",
    "kept_packets: {NULL, 1, 0, 0, NULL},": "the type of nothing",
    "kept_packets: {NULL, 0, 1, 0, NULL},": "the place of nothing",
    "kept_packets: {NULL, 0, 0, 1, NULL},": "the flags of nothing",
    "add_kept: return kept_type == NULL ? -2 : 0;": "a truth value",
    "add_kept: return kept_type == NULL ? -0 : 0;": "a module fails for want of memory alone",
    "keep_run: return failed ? -2 : 0;": "a truth value",
    "read_sent: return PyErr_Occurred() == NULL ? 0 : -2;": "a truth value",
    "count_of: for (*size = 0; *size < INT32_MAX && payload_at(payloads, index, &payload, &marker); index++)": "no run "
    "has two gigabytes",
    "count_of: return index == PyList_Size(payloads) && *size < INT32_MAX ? index : -1;": "likewise",
    "count_of: return index == PyList_Size(payloads) && *size <= INT32_MAX ? index : -2;": "below zero either way",
    "take_memory: uint8_t *data = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -2, "
    "0);": "of no file",
    "take_memory: uint8_t *data = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -0, "
    "0);": "of no file",
    "add_blocks: return block_type == NULL ? -2 : 0;": "a truth value",
    "add_blocks: return block_type == NULL ? -0 : 0;": "a module fails for want of memory alone",
    "block_new: Block *self = (Block *)allocate(block_type, 1); /* all zeros */": "it has no items",
    "block_for: if (size >= BLOCK)": "a block of its own is as large then",
    "block_for: if (filling == NULL || size >= filling->size - filling->used) {": "a block is begun a run early",
    "block_for: if (filling != NULL && Py_REFCNT((PyObject *)filling) == 0)": "it is let go when it is full",
    "gather: for (int index = 0; material != NULL && index <= count; index++)": "there is none in the list",
    "is_in_time: double elapsed = now - REAL_OF(clock, sound_now), "
    "weight = (0.001 >= elapsed ? 0.001 : elapsed) / AVERAGE;": "both are the same then",
    "is_in_time: mean += (error - mean) * (weight <= 1.0 ? weight : 1.0);": "likewise",
    "is_in_time: self->budget = budget <= MOST_BUDGET ? budget : MOST_BUDGET;": "likewise",
    "follows_on: self->pause = media - REAL_OF(transcoder, expected_media) > PAUSE;": "seconds since a machine's start "
    "have no bits for a difference of exactly that",
    "follows_on: return !(self->pause && gap >= TOLERANCE) && is_in_time(self, gap, now);": "likewise",
    "fill_transcoding: return !PyErr_Occurred() && self->encode != NULL && self->context != NULL && self->rate > 1 && "
    "self->stride > 0 &&": "no sound has one sample a second",
    "fill_transcoding: return !PyErr_Occurred() && self->encode != NULL && self->context != NULL && self->rate > 0 && "
    "self->stride > 1 &&": "samples have two octets or four",
    "fill_transcoding: self->frame_bytes > 1 && self->frame_bytes <= MOST_FRAME && "
    "self->frame_bytes % self->stride == 0;": "likewise",
    "pending_size: return pending != NULL && PyByteArray_CheckExact(pending) ? PyByteArray_Size(pending) : -2;": "below"
    " zero either way",
    "size_of: Py_ssize_t size = value == NULL ? -2 : PyLong_AsSsize_t(value);": "likewise",
    "hold_samples: Py_ssize_t count = frame == NULL ? -2 : size_of(frame, n_samples);": "likewise",
    "hold_samples: return held ? count : -2;": "likewise",
    "encode: double first[(MOST_FRAME + 1) / sizeof(double)]; /* for its alignment */": "more room",
    "encode: if (length < 0 || length > (MOST_OPUS + 1))": "libopus keeps to its room",
    "forward_sound: return sent < 0 ? -2 : hand_on(work, run, pipeline, method, material);": "a truth value",
    "take_samples: for (int number = 0; number <= made; number++)": "what is behind the last has no bytes",
    "take_samples: uint8_t out[(MAX_FRAMES + 1) * MOST_OPUS]; /* less than one is pending */": "more room",
    "take_samples: uint8_t out[MAX_FRAMES * (MOST_OPUS + 1)]; /* less than one is pending */": "likewise",
    "take_samples: return made == -1 ? call(transcoder, n_note_unencodable, NULL, NULL) : -2;": "a truth value",
    "take_samples: return failed ? -2 : 0;": "likewise",
    "pass_frames: return done == NULL ? -2 : 0;": "likewise",
    "transcode: return failed ? -2 : 0;": "likewise",
    "send_material: return failed ? -2 : plain;": "below zero either way",
    "send_material: int plain = 2, failed = 0;": "there is an output, which says it anew",
    "take_picture: if (result >= 0) {": "the Python takes it then, and says the same",
    "take_picture: if (result >= 0 && done == OTHERS_LEFT) {": "those are left where it is taken",
    "take_picture: long done = taken == NULL ? -2 : PyLong_AsLong(taken);": "unused",
    "take_picture: long done = taken == NULL ? -0 : PyLong_AsLong(taken);": "unused",
    "take_picture: int result = taken == NULL ? -2 : done == DONE || done == OTHERS_LEFT;": "below zero either way",
    "take_picture: result = feed == NULL || call(sink, n_take_left, feed, now) ? -2 : 1;": "likewise",
    "take_picture: result = feed == NULL || call(sink, n_take_left, feed, now) ? -1 : 2;": "a truth value",
    "take_sound: int result = heard == NULL ? -2 : PyLong_AsLong(heard) == DONE;": "below zero either way",
    "take_frames: PyObject *held[LISTENERS + 2] = {Py_NewRef(self->listeners[BY_SINK]), "
    "Py_NewRef(self->listeners[BY_SESSION]),": "more room",
    "datagrams_know: Stream streams[(MOST_STREAMS + 1)];": "more room",
    "datagrams_new: self->frames = PyMem_Malloc((MOST_FRAMES + 1));": "likewise",
    "datagrams_new: self->frames = PyMem_Malloc((MOST_FRAMES - 1));": "a packet is put there only "
    "where MOST_DATAGRAM has room, and has MOST_PACKET at most",
    "arrived: size_t most = sizeof came->sender, sender = came->sender_size <= most ? came->sender_size : most;": "both"
    " are the same then",
    "arrived: (const char *)came->words, (Py_ssize_t)(other <= 0 ? 0 : other), (const char *)&came->sender,": "as well",
    "arrived: (const char *)came->words, (Py_ssize_t)(other < 1 ? 0 : other), (const char *)&came->sender,": "likewise",
    "receive_datagrams: if (fd <= 0)": "there is no exception to clear",
    "receive_datagrams: if (fd < 1)": "likewise",
    "datagrams_new: Datagrams *self = (Datagrams *)allocate(type, 1); /* all zeros */": "its objects have no items",
    "datagrams_dealloc: {NULL, NULL, 1, NULL},": "the flags of nothing",
    "add_datagrams: return failed ? -2 : 0;": "a truth value",
    "add_datagrams: return failed ? -0 : 0;": "a module fails for want of memory alone",
}
"""Function and line as they are with the change, and why nothing can tell."""

_LEFT_OUT: Final = re.compile(
    r"/\*.*?\*/|\"[^\"\n]*\"|^[ \t]*#[^\n]*|^(?:static const|enum)\b[^;]*;|\breturn -?\d+;|\{0\}"
    r"|(?<=[^(][\w)] )= \d+;(?=\n)",
    re.DOTALL | re.MULTILINE,
)
"""Comments, texts, lines of the preprocessor, constants by name, truth values that are returned or set."""
_FUNCTION: Final = re.compile(r"^(\w+)\(", re.MULTILINE)
_COMPARISON: Final = re.compile(r"(?<![-<>])(?:<=|>=|<|>)(?![<>])")
_AT_ITS_BOUND: Final = {"<": "<=", "<=": "<", ">": ">=", ">=": ">"}
_NUMBER: Final = re.compile(r"(?<![\w.])\d+(?![\w.])")
_NAME: Final = re.compile(r"\b(?:MAX|MOST|LEAST)_[A-Z]+\b|\bRTP_HEADER\b|\bBURST_BYTES\b")


class Mutant(NamedTuple):
    """One change."""

    at: int
    old: str
    new: str

    def applied(self, text: str) -> str:
        return text[: self.at] + self.new + text[self.at + len(self.old) :]

    def line(self, text: str) -> str:
        """The function, and the line as it is with the change."""
        start = text.rfind("\n", 0, self.at) + 1
        functions = _FUNCTION.findall(text, 0, start)
        line = self.applied(text)[start:].partition("\n")[0].strip()
        return f"{functions[-1] if functions else ''}: {line}"


def mutants(text: str) -> Iterator[Mutant]:
    """All of a file."""
    code = _LEFT_OUT.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), text)
    for found in _COMPARISON.finditer(code):
        yield Mutant(found.start(), found[0], _AT_ITS_BOUND[found[0]])
    for found in _NUMBER.finditer(code):
        for number in (int(found[0]) + 1, int(found[0]) - 1):
            if number >= 0:
                yield Mutant(found.start(), found[0], str(number))
    for found in _NAME.finditer(code):
        for more in ("+ 1", "- 1"):
            yield Mutant(found.start(), found[0], f"({found[0]} {more})")


class Builder:
    """Builds the module with one file changed: only that one is compiled anew."""

    def __init__(self, folder: Path, options: tuple[str, ...]) -> None:
        self._folder, self._options = folder, options
        folder.mkdir()
        for path in SOURCE.glob("*.h"):
            shutil.copy(path, folder)
        for path in SOURCE.glob("*.c"):
            assert self._compiled(path.name, path.read_text()), path

    def _compiled(self, name: str, text: str) -> bool:
        source = self._folder / name
        source.write_text(text)
        include = sysconfig.get_paths()["include"]
        command = ["gcc", *self._options, "-w", "-fPIC", "-c", f"-I{include}", str(source), "-o", f"{source}.o"]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def build(self, name: str, text: str) -> Path | None:
        """The module with this text for that file; None where it does not compile."""
        if not self._compiled(name, text):
            return None
        target, objects = self._folder / "_runs.abi3.so", map(str, sorted(self._folder.glob("*.o")))
        target.unlink(missing_ok=True)  # what is loaded elsewhere stays what it is
        subprocess.run(["gcc", *self._options, "-shared", *objects, "-o", str(target)], check=True)
        return target

    def restore(self, name: str) -> None:
        assert self._compiled(name, (SOURCE / name).read_text())


UNIT_TESTS: Final = (TESTING, "-p", "no:xdist", *UNITS)
"""A program that is given a module first, and what it is given besides: the unit tests of the compiled data path."""


def fuzz(packets: int) -> tuple[str, ...]:
    """The same for a comparison of both paths, of streams that are made."""
    return (LOADING, "--made", "--packets", str(packets), "--seed", "0")


def is_noticed(module: Path, work: Sequence[str], log: Path) -> bool:
    """Whether `work` fails, dies or never ends with this module: in a process of its own, since classes are derived
    from types of the module that was there first.
    """
    program, *options = work
    environ = os.environ | {"PYTHONPATH": str(ROOT)}
    with log.open("wb") as said:
        done = subprocess.run(
            [sys.executable, "-c", program, str(module), *options],
            env=environ,
            cwd=ROOT,
            stdout=said,
            stderr=said,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS)),
            check=False,
        )
    return done.returncode != 0


class Search:
    """Tries the changes of one file after another."""

    def __init__(self, folder: Path, packets: int) -> None:
        self._plain, self._checked = Builder(folder / "plain", PLAIN), Builder(folder / "checked", SANITIZERS)
        self._log, self._packets = folder / "said.txt", packets
        self.unnoticed: list[str] = []

    def finder(self, name: str, text: str) -> str:
        """Who finds this text of a file; empty when nobody does."""
        module = self._plain.build(name, text)
        if module is None:
            return "compiler"
        if is_noticed(module, UNIT_TESTS, self._log):
            return "unit tests"
        checked = self._checked.build(name, text)
        assert checked is not None
        if sanitized(checked, seconds=2 * SECONDS).returncode:
            return "sanitizers"
        return "fuzz" if is_noticed(module, fuzz(self._packets), self._log) else ""

    def finds_the_original(self) -> bool:
        """Whether the unit tests fail without a change."""
        name = FILES[0]
        module = self._plain.build(name, (SOURCE / name).read_text())
        return module is None or is_noticed(module, UNIT_TESTS, self._log)

    def file(self, name: str, first: int, count: int | None) -> None:
        """So many changes of a file, or all, from one on."""
        text = (SOURCE / name).read_text()
        end = None if count is None else first + count
        for number, mutant in itertools.islice(enumerate(mutants(text)), first, end):
            line, where = mutant.line(text), f"{name}:{text.count(chr(10), 0, mutant.at) + 1}"
            known = line in EQUIVALENT
            found = "equivalent" if known else self.finder(name, mutant.applied(text))
            print(f"{number} {where} {mutant.old} -> {mutant.new}: {found or 'NOBODY'} | {line}", flush=True)
            if not found:
                self.unnoticed.append(f"{where} {line}")
        for builder in (self._plain, self._checked):
            builder.restore(name)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("files", nargs="*", default=FILES, help=f"C files; {', '.join(FILES)} where none is named")
    parser.add_argument("--packets", type=int, default=200_000, help="compared for a change that no test has found")
    parser.add_argument("--first", type=int, default=0, help="the first change of each file to try")
    parser.add_argument("--count", type=int, help="how many to try from there on; all where it is left out")
    options = parser.parse_args()
    os.chdir(ROOT)
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        search = Search(Path(folder), options.packets)
        assert not search.finds_the_original(), "the unit tests have to pass without a change"
        for name in options.files:
            search.file(name, options.first, options.count)
    print(f"{len(search.unnoticed)} that nobody has noticed", *search.unnoticed, sep="\n")
    return bool(search.unnoticed)


if __name__ == "__main__":
    sys.exit(main())
