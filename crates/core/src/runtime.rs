//! Time and tasks, the same natively (tokio) and in a web page (the browser's event loop).
//!
//! Protocol logic never calls this module: it takes time as an argument. Drivers do.

use std::{future::Future, pin::Pin, time::Duration};

#[cfg(not(target_arch = "wasm32"))]
mod native;
#[cfg(not(target_arch = "wasm32"))]
use native as platform;
#[cfg(target_arch = "wasm32")]
mod browser;
#[cfg(target_arch = "wasm32")]
use browser as platform;

#[cfg(not(target_arch = "wasm32"))]
mod scope;
mod task_set;

pub use platform::Instant;
#[cfg(not(target_arch = "wasm32"))]
pub use scope::{Scope, scoped};
pub use task_set::TaskSet;

/// `Send` natively; nothing in a page, whose objects belong to one thread.
#[cfg(not(target_arch = "wasm32"))]
pub trait MaybeSend: Send {}
#[cfg(not(target_arch = "wasm32"))]
impl<T: Send + ?Sized> MaybeSend for T {}
/// `Send` natively; nothing in a page, whose objects belong to one thread.
#[cfg(target_arch = "wasm32")]
pub trait MaybeSend {}
#[cfg(target_arch = "wasm32")]
impl<T: ?Sized> MaybeSend for T {}

/// `Sync` natively; nothing in a page, whose objects belong to one thread.
#[cfg(not(target_arch = "wasm32"))]
pub trait MaybeSync: Sync {}
#[cfg(not(target_arch = "wasm32"))]
impl<T: Sync + ?Sized> MaybeSync for T {}
/// `Sync` natively; nothing in a page, whose objects belong to one thread.
#[cfg(target_arch = "wasm32")]
pub trait MaybeSync {}
#[cfg(target_arch = "wasm32")]
impl<T: ?Sized> MaybeSync for T {}

/// A boxed future that is `Send` where threads exist.
#[cfg(not(target_arch = "wasm32"))]
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
/// A boxed future that is `Send` where threads exist.
#[cfg(target_arch = "wasm32")]
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// A running task. Dropping it cancels the task at its next await point, so that no task outlives its owner.
#[must_use = "dropping a Task cancels it"]
#[derive(Debug)]
pub struct Task(platform::Task);

/// Runs `future` concurrently until it ends or the returned [`Task`] is dropped.
pub fn spawn(future: impl Future<Output = ()> + MaybeSend + 'static) -> Task {
    Task(platform::spawn(future))
}

impl Task {
    /// Whether the task has ended, by itself or by cancellation.
    pub fn is_finished(&self) -> bool {
        self.0.is_finished()
    }
}

/// A future that is ready after `duration`. Natively it follows tokio's clock, paused or not.
pub fn sleep(duration: Duration) -> BoxFuture<'static, ()> {
    platform::sleep(duration)
}

/// A future that is ready at `deadline`, or at once if that has passed.
pub fn sleep_until(deadline: Instant) -> BoxFuture<'static, ()> {
    sleep(deadline.saturating_duration_since(Instant::now()))
}

/// `future` took longer than it was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("timed out")]
pub struct Elapsed;

/// Awaits `future` for at most `duration`; on [`Elapsed`] the future is dropped.
pub async fn timeout<F: Future>(duration: Duration, future: F) -> Result<F::Output, Elapsed> {
    let deadline = sleep(duration);
    futures_util::pin_mut!(future);
    match futures_util::future::select(future, deadline).await {
        futures_util::future::Either::Left((output, _)) => Ok(output),
        futures_util::future::Either::Right(_) => Err(Elapsed),
    }
}

/// A timer that fires so late has been held up by this side: the machine was asleep, or the page frozen or in the background.
const HELD_UP: Duration = Duration::from_secs(1);
/// How often [`await_remote`] takes that for an excuse. More than once only where this side is held up again and again.
const EXCUSES: u8 = 3;

/// Awaits `future`, for which a remote is to do something, for at most `duration`; on [`Elapsed`] the future is dropped.
///
/// If the timer itself is late, nothing is known of the remote: it may have answered long ago, and the answer is only not read yet.
/// So it is given the time once more. A limit that a remote must not exceed wants [`timeout`].
pub async fn await_remote<F: Future>(duration: Duration, future: F) -> Result<F::Output, Elapsed> {
    futures_util::pin_mut!(future);
    let mut excuses = EXCUSES;
    loop {
        let start = Instant::now();
        if let Ok(output) = timeout(duration, &mut future).await {
            return Ok(output);
        }
        let late = start.elapsed().saturating_sub(duration);
        if late < HELD_UP || excuses == 0 {
            return Err(Elapsed);
        }
        excuses = excuses.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn dropped_task_runs_no_further() {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let task = spawn(async move {
            sleep(Duration::from_secs(1)).await;
            let _ = sender.send(());
        });
        tokio::task::yield_now().await;
        assert!(!task.is_finished());
        drop(task);
        assert!(receiver.await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn timeout_follows_the_paused_clock() {
        let start = Instant::now();
        let never = timeout(Duration::from_secs(60), std::future::pending::<()>()).await;
        assert_eq!(never, Err(Elapsed));
        assert_eq!(start.elapsed(), Duration::from_secs(60));
        assert_eq!(timeout(Duration::ZERO, async { 1 }).await, Ok(1));
        sleep_until(start).await;
        assert_eq!(start.elapsed(), Duration::from_secs(60));
    }

    #[tokio::test(start_paused = true)]
    async fn a_remote_is_not_blamed_for_a_late_timer() {
        const SECOND: Duration = Duration::from_secs(1);
        let (answer, mut answered) = tokio::sync::oneshot::channel();
        let answering = async {
            // Nothing runs here for an hour, and the answer is read after the timer.
            tokio::time::advance(3600 * SECOND).await;
            sleep(SECOND).await;
            answer.send(7).unwrap();
        };
        assert_eq!(tokio::join!(await_remote(10 * SECOND, &mut answered), answering).0, Ok(Ok(7)));

        let start = Instant::now();
        assert_eq!(await_remote(10 * SECOND, std::future::pending::<()>()).await, Err(Elapsed));
        assert_eq!(start.elapsed(), 10 * SECOND, "in time, so it is the remote");
        let held_up = async {
            for _ in 0..=EXCUSES {
                tokio::time::advance(60 * SECOND).await;
            }
        };
        let waited = tokio::join!(await_remote(10 * SECOND, std::future::pending::<()>()), held_up).0;
        assert_eq!(waited, Err(Elapsed), "not for ever");
    }
}
