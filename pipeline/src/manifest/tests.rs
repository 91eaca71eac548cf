//! Whole sets: what is read from a good one, and what is said of a bad one.

mod good;
