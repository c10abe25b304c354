//! The table: what each operation cost, the goals, and whether they are met.

use core::fmt;

use crate::measure::Cost;

/// Rows there is place for; one more is an error of this program.
const ROWS_MAX: usize = 64;

/// The most an operation may cost.
#[derive(Clone, Copy, Debug, Default)]
pub struct Goal {
    /// Instructions.
    pub instructions: Option<u64>,
    /// Bytes of stack.
    pub stack: Option<usize>,
}

#[derive(Clone, Copy, Debug)]
struct Row {
    suite: u8,
    operation: &'static str,
    cost: Cost,
    goal: Goal,
}

impl Row {
    fn is_met(&self) -> bool {
        let Self { cost, goal, .. } = self;
        goal.instructions.is_none_or(|max| cost.instructions <= max) && goal.stack.is_none_or(|max| cost.stack <= max)
    }
}

/// All rows, in the order they were measured in.
#[derive(Debug)]
pub struct Table {
    rows: [Option<Row>; ROWS_MAX],
    len: usize,
}

impl Default for Table {
    fn default() -> Self {
        Self { rows: [None; ROWS_MAX], len: 0 }
    }
}

impl Table {
    /// Adds a row.
    pub fn row(&mut self, suite: u8, operation: &'static str, cost: Cost, goal: Goal) {
        self.rows[self.len] = Some(Row { suite, operation, cost, goal });
        self.len += 1;
    }

    /// Whether every goal is met.
    #[must_use]
    pub fn is_met(&self) -> bool {
        self.rows.iter().flatten().all(Row::is_met)
    }

    /// Writes the rows to be read by people, and then each as a line of JSON.
    ///
    /// # Errors
    ///
    /// Where `out` takes no text.
    pub fn print(&self, out: &mut impl fmt::Write) -> fmt::Result {
        writeln!(out, "suite  {:<48} {:>12} {:>7}  at most", "operation", "instructions", "stack")?;
        for row in self.rows.iter().flatten() {
            let Row { suite, operation, cost, goal } = row;
            write!(out, "{suite:>5}  {operation:<48} {:>12} {:>7} ", cost.instructions, cost.stack)?;
            if let Some(max) = goal.instructions {
                write!(out, " {max} instructions")?;
            }
            if let Some(max) = goal.stack {
                write!(out, " {max} B")?;
            }
            writeln!(out, "{}", if row.is_met() { "" } else { "  MISSED" })?;
        }
        for row in self.rows.iter().flatten() {
            let Row { suite, operation, cost, .. } = row;
            writeln!(
                out,
                "{{\"suite\":{suite},\"operation\":\"{operation}\",\"instructions\":{},\"stack_bytes\":{},\"met\":{}}}",
                cost.instructions,
                cost.stack,
                row.is_met(),
            )?;
        }
        Ok(())
    }
}
