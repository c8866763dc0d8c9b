"""Makes the files of this folder: python3 make_sounds.py (needs imageio-ffmpeg and numpy)."""

import subprocess
import wave

import imageio_ffmpeg
import numpy

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()
RATE = 16_000


def ffmpeg(*args):
    subprocess.run([FFMPEG, "-hide_banner", "-loglevel", "error", "-y", *args], check=True)


# A tone that rises, so that each moment sounds like no other; mono, a length of no whole packets.
seconds = 1.7
time = numpy.arange(int(RATE * seconds)) / RATE
tone = numpy.sin(2 * numpy.pi * (200 * time + 600 * time**2)) * 0.5
with wave.open("tone.wav", "wb") as file:
    file.setnchannels(1)
    file.setsampwidth(2)
    file.setframerate(RATE)
    file.writeframes((tone * 32767).round().astype("<i2").tobytes())

# Noise substitution draws random numbers, which decoders that begin elsewhere draw otherwise.
AAC = ["-c:a", "aac", "-b:a", "32k", "-aac_pns", "0", "-map_metadata", "-1"]
PICTURE = ["-f", "lavfi", "-i", "testsrc=size=48x32:rate=10:duration=1.5"]
X264 = ["-c:v", "libx264", "-preset", "veryslow", "-crf", "34", "-bf", "2", "-pix_fmt", "yuv420p"]
EXACT = ["-fflags", "+bitexact", "-flags:v", "+bitexact", "-flags:a", "+bitexact"]

ffmpeg("-i", "tone.wav", *AAC, *EXACT, "tone.m4a")
# With B-frames, so that the video has an edit list of its own; sound longer than the video.
ffmpeg(*PICTURE, "-i", "tone.wav", *X264, *AAC, *EXACT, "clip.mp4")
# Sound that begins 0.4 s late.
ffmpeg(*PICTURE, "-itsoffset", "0.4", "-i", "tone.wav", *X264, *AAC, *EXACT, "late.mp4")
# Sound that only other programs read.
ffmpeg(*PICTURE, "-i", "tone.wav", *X264, "-c:a", "ac3", "-b:a", "32k", "-t", "0.3", *EXACT, "ac3.mp4")
# A short WAV of 24 bits and two channels.
ffmpeg("-i", "tone.wav", "-t", "0.05", "-ac", "2", "-c:a", "pcm_s24le", *EXACT, "short.wav")
