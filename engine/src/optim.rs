//! AdamW over arenas, schedules, gradient clipping and loss scaling.
