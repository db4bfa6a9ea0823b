"""Run a packed net with numpy and `lobit.load` alone; PyTorch need not be installed.

Run: python run_without_torch.py [net.lobit]     for 8 x 8 digits; the net that bring_your_own_model.py made unless given
"""

import sys
from pathlib import Path

import lobit
from lobit.data import load_data

path = sys.argv[1] if len(sys.argv) > 1 else Path(__file__).with_name("digits.lobit")
session = lobit.load(path, threads=1)
data = load_data("digits")
images = data.scale(data.test_images, 0.0, 1.0)  # float32, (N, 1, 8, 8)
guesses = session(images).argmax(1)
print(session)
print(f"{(guesses == data.test_labels).mean():.1%} of {len(images)} digits are right; the first ten: {guesses[:10].tolist()}")
print("torch was imported" if "torch" in sys.modules else "torch was not imported")
