"""The words of the pages that need a sentence: what each means, and which way is good."""

TERMS = {
    "vocabulary": (
        "The distinct characters of the text, after it was normalized. The model predicts one of them at a "
        "time. Neither a small nor a large vocabulary is better; a larger one is harder to predict."
    ),
    "loss": (
        "The mean of −ln p over the characters, in nats, where p is the probability that the model gave to "
        "the character that follows. Lower is better. The training loss is of text that the model learns "
        "from; only the validation loss tells how well it predicts other text."
    ),
    "bits per character": (
        "The mean of −log₂ p: the loss in bits, 1.44 times that in nats. Lower is better. One bit more "
        "halves the probability of the right character."
    ),
    "surprise": (
        "−log₂ p of one character, in bits: 0 where the model was certain of it, 1 where it gave it one "
        "chance in two, 3 for one in eight. Lower is better."
    ),
    "perplexity": (
        "2 to the power of the bits per character: the model is as uncertain as if it chose among so many "
        "equally likely characters. Lower is better; 1 would be certainty."
    ),
    "n-gram baseline": (
        "A model that only counts which character follows the n − 1 before it. A network is worth its "
        "time where its validation loss is lower than that of the best of them."
    ),
    "known words": (
        "The share of the sample's words that occur in the text. Higher is better, but a model "
        "that only copies has 100 %, too."
    ),
    "8-gram novelty": (
        "The share of the sample's runs of 8 characters that do not occur in the text. Near 0 % it "
        "copies, near 100 % it hardly writes the language of the text. In between, neither more nor "
        "less is better by itself."
    ),
    "longest copy": (
        "The length of the sample's longest passage that occurs in the text. Lower is better: a long one was "
        "learned by heart."
    ),
    "distinct 3-grams": (
        "The different runs of 3 characters in the sample, as a share of all its runs of 3. Higher is "
        "better: a low share means that it repeats itself."
    ),
}
