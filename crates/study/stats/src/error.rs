//! What a caller can ask for that cannot be answered.

/// Why a question was refused. Values that say too little (one run, no spread) are no error: the answer says so.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Error {
    /// A level, a share or a quantile outside its range.
    #[error("{name} is {value}, but must lie between 0 and 1; give a share such as 0.95")]
    Share {
        /// Of which setting.
        name: &'static str,
        /// As it was given.
        value: f64,
    },
    /// A margin, a target or a tolerance that is negative or no number.
    #[error("{name} is {value}, but must be a finite number of 0 or more")]
    Negative {
        /// Of which setting.
        name: &'static str,
        /// As it was given.
        value: f64,
    },
    /// No run, study or sample with a finite value.
    #[error("{name} has no finite value; leave it out, or record it again")]
    Empty {
        /// Which side or series.
        name: &'static str,
    },
    /// Sums or squares of the values pass what a double holds.
    #[error("the values of {name} are too large to be summed; give them in a larger unit")]
    TooLarge {
        /// Which side or series.
        name: &'static str,
    },
    /// A design that does not exist or is too large to be held.
    #[error("there is no such design: {why}")]
    Design {
        /// What is wrong, with the remedy.
        why: String,
    },
}

/// `value` when it lies strictly between 0 and 1.
pub(crate) fn share(name: &'static str, value: f64) -> Result<f64, Error> {
    if value > 0.0 && value < 1.0 { Ok(value) } else { Err(Error::Share { name, value }) }
}

/// `value` when it is finite and not negative.
pub(crate) fn not_negative(name: &'static str, value: f64) -> Result<f64, Error> {
    if value.is_finite() && value >= 0.0 { Ok(value) } else { Err(Error::Negative { name, value }) }
}
