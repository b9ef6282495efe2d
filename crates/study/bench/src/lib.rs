//! Study files to plans to runs; owns the trait Subject.
