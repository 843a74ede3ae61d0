"""Speech recognition: spoken numbers to letters, whoever speaks.

    python docs/examples/speech_recognition.py            # ten minutes
    python docs/examples/speech_recognition.py --short    # half a minute

espeak-ng (its library comes with the package espeakng-loader) says two to four digits with many
voices, at many speeds and pitches; noise is added. A convolution over mel features, GRUs in both
directions, and a loss that needs no alignment (CTC, Graves et al., 2006). The voices of the test
are never heard in training. Writes speech_recognition.png: a recording, and what is read in it.
"""

import ctypes
import sys
import time

import espeakng_loader
import matplotlib.pyplot as plt
import numpy as np
from scipy import signal

import gpubp as gp
from gpubp import nn, ops, optim
from gpubp.optim import lr_scheduler
from gpubp.train import ctc_beam, ctc_greedy, error_rate

SHORT = "--short" in sys.argv
SPOKEN, HELD_OUT, EPOCHS, WIDTH = (800, 80, 7, 48) if SHORT else (4000, 500, 20, 96)
STATED, BATCH, FRAMES, BANDS = 0.10 if SHORT else 0.05, 32, 160, 32
DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
LETTERS = " " + "".join(sorted(set("".join(DIGITS))))  # class 0 is CTC's blank, 1 the space
HEARD = ["m1", "m2", "m3", "m4", "f1", "f2", "f3", "Andy", "Alicia", "Gene", "Jacky", "Lee"]
HEARD += ["Mario", "Michael", "linda", "max", "steph"]
UNHEARD = ["m7", "f4", "Annie", "Denis", "belinda"]

espeak = ctypes.CDLL(espeakng_loader.get_library_path())
rate = espeak.espeak_Initialize(2, 0, espeakng_loader.get_data_path().encode(), 0)  # 2: no sound
heard: list[np.ndarray] = []
SHORTS = ctypes.POINTER(ctypes.c_short)


@ctypes.CFUNCTYPE(ctypes.c_int, SHORTS, ctypes.c_int, ctypes.c_void_p)
def keep(wave, count, events):
    """What espeak calls with each piece of sound."""
    if wave and count:
        heard.append(np.ctypeslib.as_array(wave, (count,)).copy())
    return 0


espeak.espeak_SetSynthCallback(keep)
MEL = 2595 * np.log10(1 + np.array([80.0, 8000.0]) / 700)  # O'Shaughnessy's formula
edges = 700 * (10 ** (np.linspace(MEL[0], MEL[1], BANDS + 2) / 2595) - 1)
hertz = np.fft.rfftfreq(512, 1 / rate)
rising = (hertz - edges[:-2, None]) / np.diff(edges)[:-1, None]
falling = (edges[2:, None] - hertz) / np.diff(edges)[1:, None]
FILTERS = np.maximum(0, np.minimum(rising, falling))  # triangles, (bands, frequencies)
analysis = signal.ShortTimeFFT(np.hanning(512), rate // 80, rate, mfft=512)


def recorded(text, voice, rng):
    """Mel features (FRAMES, BANDS) of a text, 80 a second, and how many there are."""
    espeak.espeak_SetVoiceByName(f"{rng.choice(['en-us', 'en-gb'])}+{voice}".encode())
    espeak.espeak_SetParameter(1, int(rng.integers(150, 230)), 0)  # words a minute
    espeak.espeak_SetParameter(3, int(rng.integers(35, 65)), 0)  # pitch, of 100
    heard.clear()
    espeak.espeak_Synth(text.encode(), len(text) + 1, 0, 1, 0, 1, None, None)
    wave = np.concatenate(heard) / 32768
    wave += rng.normal(size=len(wave)) * wave.std() * rng.uniform(0.01, 0.1)
    power = analysis.spectrogram(wave)
    features = np.log(FILTERS @ power + 1e-4).T[:FRAMES]
    features = (features - features.mean(0)) / (features.std(0) + 1e-3)
    return np.pad(features, ((0, FRAMES - len(features)), (0, 0))), len(features)


def recordings(count, voices, seed):
    """Features (N, BANDS, FRAMES), their lengths, texts, labels (N, 24), and their lengths."""
    rng = np.random.default_rng(seed)
    texts = [" ".join(rng.choice(DIGITS, rng.integers(2, 5))) for _ in range(count)]
    found = [recorded(text, rng.choice(voices), rng) for text in texts]
    labels = np.zeros((count, 24), np.int64)
    for row, text in zip(labels, texts):
        row[: len(text)] = [LETTERS.index(letter) + 1 for letter in text]
    x = np.stack([features.T for features, _ in found]).astype(np.float32)
    return x, np.array([n for _, n in found]), texts, labels, np.array(list(map(len, texts)))


class Listener(nn.Module):
    """Features to logarithms of the letters' probabilities, 40 times a second."""

    def __init__(self):
        super().__init__()
        self.near = nn.Sequential(
            nn.Conv1d(BANDS, WIDTH, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.Conv1d(WIDTH, WIDTH, 3, padding=1),
            nn.ReLU(),
            nn.Dropout(0.1),
        )
        self.far = nn.GRU(WIDTH, WIDTH, bidirectional=True)
        self.head = nn.Linear(2 * WIDTH, len(LETTERS) + 1)

    def forward(self, x, lengths):
        near = ops.transpose(self.near(x), (2, 0, 1))  # (times, samples, features)
        out, _ = self.far(near, None, lengths)
        return ops.log_softmax(self.head(out), -1)


gp.manual_seed(0)
x, frames, texts, labels, counts = recordings(SPOKEN, HEARD, 1)
times = (frames + 1) // 2
print(f"{len(x)} recordings of {len(HEARD)} voices, {frames.mean() / 80:.1f} s on average")
model, loss_fn = Listener(), nn.CTCLoss(zero_infinity=True)
optimizer = optim.Adam(model.parameters(), lr=1e-3)
steps = EPOCHS * -(-len(x) // BATCH)
schedule = lr_scheduler.OneCycleLR(optimizer, max_lr=6e-3, total_steps=steps)
step = gp.compile_step(
    lambda x, times, labels, counts: loss_fn(model(x, times), labels, times, counts),
    optimizer,
    scheduler=schedule,
    max_grad_norm=1.0,
)
begun = time.perf_counter()
for epoch in range(EPOCHS):
    losses = step.run(x, times, labels, counts, batch_size=BATCH, epochs=1)
    print(f"epoch {epoch + 1}: {losses.mean():.3f}", flush=True)
print(f"training took {time.perf_counter() - begun:.1f} s")

x, frames, texts, labels, counts = recordings(HELD_OUT, UNHEARD, 2)
scores, times = gp.compile(model.eval())(x, (frames + 1) // 2), (frames + 1) // 2
for name, decode in (("greedy", ctc_greedy), ("beam", ctc_beam)):
    read = ["".join(LETTERS[i - 1] for i in row) for row in decode(scores, times)]
    wrong = error_rate(read, texts)
    print(f"{name}: character error rate {wrong:.4f}, as in {read[0]!r} for {texts[0]!r}")

# The picture: what is heard, and when the network reads which letter.
figure, (upper, lower) = plt.subplots(2, 1, figsize=(10, 6), sharex=True, layout="constrained")
seconds = times[0] / 40
upper.imshow(x[0, :, : frames[0]], origin="lower", aspect="auto", extent=(0, seconds, 0, BANDS))
upper.set(title=f"{texts[0]!r}, read as {read[0]!r}", ylabel="mel band")
sure, path = np.exp(scores[: times[0], 0]), scores[: times[0], 0].argmax(-1)
lower.plot(np.arange(times[0]) / 40, sure[:, 2:])
for moment in np.flatnonzero((path > 1) & (path != np.r_[0, path[:-1]])):
    lower.text(moment / 40, sure[moment].max(), LETTERS[path[moment] - 1])
lower.set(xlabel="seconds", ylabel="probability")
figure.savefig("speech_recognition.png", dpi=110)

verdict = "passed" if wrong <= STATED else "FAILED"
print(f"character error rate of unheard voices {wrong:.4f}, stated {STATED}: {verdict}")
assert verdict == "passed"
