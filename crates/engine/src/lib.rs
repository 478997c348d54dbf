//! Sessions, admission, execution (under construction).
