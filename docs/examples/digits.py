"""Classify hand-written digits with the Trainer, and look at what was compiled."""

import gpubp as gp
from gpubp import nn, optim
from gpubp.data import load_digits

gp.manual_seed(0)
X, X_test, y, y_test = load_digits(split=True)

model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Dropout(0.1), nn.Linear(128, 10))
trainer = gp.Trainer(model, nn.CrossEntropyLoss(), optim.Adam(model.parameters(), lr=2e-3))
history = trainer.fit(X, y, epochs=15, batch_size=64, validation_data=(X_test, y_test))

print(trainer.step.report())
accuracy = trainer.evaluate(X_test, y_test)["accuracy"]
print(f"held-out accuracy {accuracy:.3f}")
assert history["loss"][-1] < history["loss"][0]
assert accuracy > 0.95
