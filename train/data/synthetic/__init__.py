"""Synthetic scenes: people cut out of photographs and pasted together, with exact truth, in any official layout.

    python -m qanet.train.data.synthetic --people CCP_DIR --format cihp --labels ccp13 --split val --output DIR

Every number measured on them is a number on synthetic data, and the files say so (synthetic_<split>.json).
"""
