//! Pure statistics: summaries, intervals, joins of frame sequences.
