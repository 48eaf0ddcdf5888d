"""The words of the pages that need a sentence: what each means, and which way is good."""

TERMS = {
    "vocabulary": (
        "The distinct characters of the text, after it was normalized. The model predicts one of them at a "
        "time. No number is better: more of them are harder to predict."
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
        "2 to the power of the bits per character: among so many equally likely characters the model chooses "
        "on average. Lower is better; 1 would be certainty."
    ),
    "n-gram baseline": (
        "A model that only counts which character follows the n − 1 before it. A network that has learned "
        "something has a lower validation loss than the best of them."
    ),
    "known words": (
        "The share of the sample's words that occur in the text. Higher is better, up to what the text "
        "itself has: a model that copies has 100 %, too."
    ),
    "8-gram novelty": (
        "The share of the sample's runs of 8 characters that do not occur in the text. Near 0 % it copies, "
        "near 100 % it hardly writes the language of the text. Between them neither way is better by itself."
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
