"""A recording, as a file or as samples -> mono float32 samples at 16 kHz within [-1, 1].

That is the only form Whisper reads right: integers, two channels or another rate give wrong text without an
error, so all sound comes in through here. Files are decoded by PyAV, which carries FFmpeg's libraries: wav,
webm, ogg, mp3, flac and m4a need no ffmpeg program. Only plain containers are opened: FFmpeg also reads
playlists, which name other files.
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from vlm.errors import UserError

SAMPLE_RATE = 16_000  # Hz, what Whisper and the speech detector were trained on
MAX_SECONDS = 600
MAX_RECORDING_BYTES = 240 * 1024**2  # ten minutes of 48 kHz stereo in 32-bit samples are 230 MB
SAMPLE_RATES = range(1_000, 384_001)  # Hz
# Of the files that hold what is in CONTAINERS
ENDINGS = frozenset(
    ".wav .w64 .aif .aiff .aifc .au .snd .caf .flac .ogg .oga .opus .spx .mp1 .mp2 .mp3 .mpga .mpega .aac .adts .amr .awb "
    ".mka .mkv .webm .weba .mov .mp4 .m4a .m4b .m4v .3gp .3gpp .3g2 .3gpp2 .mj2 .avi .asf .wma".split()
)
CONTAINERS = "wav,w64,aiff,au,caf,flac,ogg,mp3,aac,amr,matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,avi,asf"
_FULL_SCALE = 32_768  # a 16-bit sample of this size would be 1.0
_SLACK_SECONDS = 1  # encoders pad a ten-minute file by a few frames

TOO_LONG = f"The recording is longer than {MAX_SECONDS // 60} minutes. Use a shorter one."
EMPTY = "The recording is empty. Record it again or choose another file."


def is_recording(name: str) -> bool:
    """Whether a file is one to be heard, by its name: browsers record into containers for films as well."""
    return PurePath(name).suffix.lower() in ENDINGS


def open_audio(source: str | Path | tuple[int, np.ndarray]) -> np.ndarray:
    """A path, or (rate in Hz, samples [T] or [T, channels]) -> float32 [T'] at SAMPLE_RATE, never empty."""
    samples = _read_array(*source) if isinstance(source, tuple) else _read_file(Path(source))
    if not samples.size:
        raise UserError(EMPTY)
    return samples


def _read_file(path: Path) -> np.ndarray:
    import av

    if not os.path.isfile(path):  # False, and no error, where the name is too long
        raise UserError(f"No recording is called {path.name[:60]!r}. Record it again or choose another.")
    size = path.stat().st_size
    if size == 0:
        raise UserError(EMPTY)
    if size > MAX_RECORDING_BYTES:
        raise UserError(
            f"The recording is larger than {MAX_RECORDING_BYTES // 1024**2} MB. Use a shorter one."
        )
    unreadable = f"{path.name!r} cannot be read as sound. Choose a wav, mp3, ogg, webm, flac or m4a file."
    try:
        # The resolved path starts with a slash, so that no name can be taken for a protocol ("concat:...").
        with av.open(
            str(path.resolve()),
            metadata_errors="ignore",
            options={"format_whitelist": CONTAINERS, "protocol_whitelist": "file"},
        ) as container:
            if not container.streams.audio:
                raise UserError(f"{path.name!r} holds no sound. Choose another recording.")
            return _resample(_frames_of_file(container))
    except UserError:
        raise
    except PermissionError as error:
        raise UserError(
            f"{path.name!r} may not be read by this account. Change its permissions, or choose another recording."
        ) from error
    except (av.FFmpegError, ValueError, OSError) as error:  # ValueError: the sound's format changes half-way
        raise UserError(unreadable) from error


def _frames_of_file(container: Any) -> Iterator[Any]:
    """The frames of the first sound track; a damaged packet is passed over, as players do."""
    import av

    for packet in container.demux(audio=0):
        try:
            frames = packet.decode()
        except av.error.InvalidDataError:
            continue
        yield from frames


def _read_array(rate: int, samples: np.ndarray) -> np.ndarray:
    """Integers keep their scale; floats above 1 are taken down to it."""
    import av

    samples = np.asarray(samples)
    if int(rate) not in SAMPLE_RATES or samples.ndim not in (1, 2) or samples.dtype.kind not in "iuf":
        raise UserError("The recording is not in a form that can be read. Record it again or choose a file.")
    if max(samples.shape) > (MAX_SECONDS + _SLACK_SECONDS) * rate:
        raise UserError(TOO_LONG)
    if not samples.size:
        raise UserError(EMPTY)
    scale = float(np.iinfo(samples.dtype).max) + 1 if samples.dtype.kind in "iu" else 1.0
    waves = samples.astype(np.float32) / np.float32(scale)
    if samples.dtype.kind == "u":  # unsigned samples have their silence in the middle: [0, 1) -> [-1, 1)
        waves = 2 * waves - 1
    waves = np.nan_to_num(waves, nan=0.0, posinf=0.0, neginf=0.0)
    if waves.ndim == 2:
        waves = waves.mean(axis=int(np.argmin(waves.shape)))  # there are always fewer channels than samples
    peak = max(1.0, float(np.abs(waves).max()))
    whole = np.clip(np.rint(waves / peak * _FULL_SCALE), -_FULL_SCALE, _FULL_SCALE - 1).astype(np.int16)
    frame = av.AudioFrame.from_ndarray(whole[None, :], format="s16", layout="mono")
    frame.sample_rate = int(rate)
    return _resample([frame])


def _resample(frames: Iterable[Any]) -> np.ndarray:
    """Frames of any rate and layout -> float32 [T] at SAMPLE_RATE; stops once the sound proves too long.

    A small compressed file can hold hours, and its header need not say so: the limit is kept while decoding.
    """
    import av

    resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
    limit = (MAX_SECONDS + _SLACK_SECONDS) * SAMPLE_RATE
    pieces: list[np.ndarray] = []
    length = 0
    for frame in _and_flush(frames):
        if frame is not None:
            frame.pts = None  # gaps in the time stamps are not silence to be filled
            if frame.samples > (MAX_SECONDS + _SLACK_SECONDS) * frame.sample_rate:
                raise UserError(TOO_LONG)  # before a rate of 1 Hz is turned into gigabytes
        for resampled in resampler.resample(frame):
            piece = resampled.to_ndarray()[0]  # [1, n] -> [n]
            length += len(piece)
            if length > limit:
                raise UserError(TOO_LONG)
            pieces.append(piece)
    if not pieces:
        return np.zeros(0, dtype=np.float32)
    return np.concatenate(pieces).astype(np.float32) / _FULL_SCALE


def _and_flush(frames: Iterable[Any]) -> Iterator[Any]:
    """The frames, then the None that makes the resampler hand out its last samples, if it was given any."""
    seen = False
    for frame in frames:
        seen = True
        yield frame
    if seen:
        yield None
