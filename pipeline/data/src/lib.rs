//! Checks of datasets.
