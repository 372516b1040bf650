"""Words with their share in the log-odds of a positive review, for the analytic models."""

from __future__ import annotations

_GRADES = {
    2.0: """
        amazing astonishing beautiful breathtaking brilliant captivating delightful enchanting
        excellent exceptional exquisite extraordinary fantastic flawless gorgeous magnificent
        marvelous masterpiece outstanding perfect phenomenal remarkable spectacular splendid
        stunning superb terrific triumph unforgettable wonderful
    """,
    1.0: """
        affecting amusing bold bright charming clever comfortable compelling confident convincing
        crisp delicious effective elegant engaging enjoyable entertaining fascinating fresh friendly
        fun funny generous gentle good great gripping heartfelt honest hopeful imaginative
        impressive inspired lively love loved lovely memorable moving original pleasant polished
        powerful recommend refreshing reliable rich satisfying sharp smart smooth solid strong
        sturdy tender thoughtful thrilling touching vivid warm well witty worth
    """,
    0.5: """
        adequate better calm careful clean decent easy fair fine happy helpful interesting nice
        neat quick quiet sincere sweet useful watchable
    """,
    -0.5: """
        cheap cold familiar flimsy late long loud obvious odd ordinary plain rough sad short
        slight slow small strange thin uneven
    """,
    -1.0: """
        annoying bad bland boring broken careless cliched clumsy confusing contrived cracked crude
        dirty disappointed disappointing dry dull empty expensive failed fails flat forced
        forgettable frustrating hollow lazy lifeless messy mess mistake noisy overlong pointless
        poor pretentious predictable problem regret rude sloppy soggy stale stiff tedious tired
        tiresome uncomfortable unfunny unlikable weak worse wrong
    """,
    -2.0: """
        abysmal appalling atrocious awful disaster disgusting dreadful garbage hate hated horrible
        incoherent insufferable insulting laughable miserable pathetic rubbish ruined terrible
        torture unbearable unwatchable useless waste wasted worst worthless
    """,
}

SENTIMENT = {word: weight for weight, words in _GRADES.items() for word in words.split()}
"""Lower-cased word -> weight."""

NEGATIONS = (
    {"all": ["not", "good"], "weight": -2.0},
    {"all": ["not", "great"], "weight": -2.0},
    {"all": ["not", "funny"], "weight": -2.0},
    {"all": ["not", "worth"], "weight": -2.0},
    {"all": ["not", "bad"], "weight": 2.0},
    {"all": ["never", "boring"], "weight": 2.0},
    {"all": ["no", "problem"], "weight": 2.0},
    {"any": ["love", "loved"], "weight": 1.5},
    {"any": ["waste", "wasted"], "weight": -1.5},
)
"""Groups of words that count as one: a pair whose sense turns, or words that add nothing twice."""
