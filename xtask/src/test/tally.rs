//! Counts tests from what test runners print: cargo's, wasm-pack's and Node's.

/// How many tests passed and failed, and which were skipped.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    pub(crate) skipped: Vec<String>,
}

impl Tally {
    /// A suite that ended without a result.
    pub(crate) fn broken() -> Self {
        Self { failed: 1, ..Self::default() }
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped.extend(other.skipped);
    }

    /// Takes in one line of a runner's output.
    pub(crate) fn read(&mut self, line: &str) {
        let line = line.trim();
        if let Some(result) = line.strip_prefix("test result: ") {
            // test result: FAILED. 3 passed; 1 failed; 1 ignored; …
            self.passed += number_before(result, " passed");
            self.failed += number_before(result, " failed");
        } else if let Some(test) = line.strip_prefix("test ").filter(|test| test.contains(" ... ignored")) {
            // test name ... ignored, reason
            self.skipped.push(test.replacen(" ... ignored", "", 1));
        } else if let Some(count) = line.strip_prefix("ℹ pass ") {
            self.passed += count.parse::<usize>().unwrap_or_default();
        } else if let Some(count) = line.strip_prefix("ℹ fail ") {
            self.failed += count.parse::<usize>().unwrap_or_default();
        } else if let Some(name) = line.strip_prefix("﹣ ") {
            // Node's runner: ﹣ name (0.1ms) # reason
            self.skipped.push(name.to_owned());
        }
    }
}

fn number_before(text: &str, word: &str) -> usize {
    let Some((before, _)) = text.split_once(word) else { return 0 };
    before.rsplit(' ').next().and_then(|number| number.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(output: &str) -> (usize, usize, Vec<String>) {
        let mut tally = Tally::default();
        output.lines().for_each(|line| tally.read(line));
        (tally.passed, tally.failed, tally.skipped)
    }

    #[test]
    fn results_of_cargo_add_up_over_binaries() {
        let output = "test a ... ok\ntest b ... ignored, no such peer\n\
                      test result: ok. 1 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out\n\
                      test result: FAILED. 10 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out\n";
        assert_eq!(tally(output), (11, 2, vec!["b, no such peer".to_owned()]));
    }

    #[test]
    fn results_of_nodes_test_runner_are_counted() {
        let output =
            "✔ dials (3ms)\n﹣ go-libp2p (0.1ms) # not on this machine\nℹ tests 3\nℹ pass 1\nℹ fail 1\n";
        assert_eq!(tally(output), (1, 1, vec!["go-libp2p (0.1ms) # not on this machine".to_owned()]));
    }
}
