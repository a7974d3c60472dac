// Of this program, what tests/fuzz gives any bytes to. It can link no program, so it includes this.

mod config;
mod exit;
