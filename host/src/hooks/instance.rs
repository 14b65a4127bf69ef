//! A running hook: one instance for one request.

use std::sync::Arc;
use std::time::Duration;

use wasmtime::component::{ComponentNamedList, Instance as WasmInstance, Lift, Lower, TypedFunc};
use wasmtime::{Store, Trap};

use super::component::Hook;
use super::error::Fault;
use super::state::State;
use super::v0_1::Function;

/// How long a call of a component with WASI may take beyond its processor time: it may wait for a clock.
const WAIT: Duration = Duration::from_secs(1);

/// An instance. After a [`Fault`] it is of no use any more.
pub(super) struct Instance {
    hook: Arc<Hook>,
    store: Store<State>,
    instance: WasmInstance,
}

impl Instance {
    /// Starts an instance. Blocks, and for components with WASI needs tokio's runtime around it.
    ///
    /// # Errors
    /// Its memory is beyond the limit, or its start function fails.
    pub(super) fn start(hook: &Arc<Hook>) -> Result<Self, Fault> {
        let mut store = State::store(&hook.runtime.engine, hook.surroundings.clone());
        State::begin(&mut store);
        let guard = hook.runtime.running();
        let outcome = if hook.is_wasi {
            block_on(hook, hook.pre.instantiate_async(&mut store))
        } else {
            Ok(hook.pre.instantiate(&mut store))
        };
        drop(guard);
        match outcome {
            Ok(Ok(instance)) => Ok(Self { hook: Arc::clone(hook), store, instance }),
            Ok(Err(error)) => Err(fault(&store, &error)),
            Err(fault) => Err(fault),
        }
    }

    /// What its memory has grown to.
    pub(super) fn memory_bytes(&self) -> usize {
        self.store.data().memory_bytes()
    }

    /// The functions that the hook exports.
    pub(super) fn functions(&self) -> impl Iterator<Item = Function> {
        self.hook.functions()
    }

    /// Whether a function has these types.
    pub(super) fn check<P, R>(&mut self, function: Function) -> Result<(), Fault>
    where
        P: ComponentNamedList + Lower,
        R: ComponentNamedList + Lift,
    {
        self.function::<P, R>(function).map(drop)
    }

    fn function<P, R>(&mut self, function: Function) -> Result<TypedFunc<P, R>, Fault>
    where
        P: ComponentNamedList + Lower,
        R: ComponentNamedList + Lift,
    {
        let missing =
            || Fault::Malformed(format!("it exports no {}#{}", function.path().0, function.path().1));
        let index = self.hook.function(function).ok_or_else(missing)?;
        let callee = self.instance.get_func(&mut self.store, index).ok_or_else(missing)?;
        callee.typed::<P, R>(&self.store).map_err(|error| Fault::Malformed(format!("{error:#}")))
    }

    /// Calls a function that the hook exports.
    pub(super) fn call<P, R>(&mut self, function: Function, input: P) -> Result<R, Fault>
    where
        P: ComponentNamedList + Lower + Send + Sync,
        R: ComponentNamedList + Lift + Send + Sync + 'static,
    {
        let callee = self.function::<P, R>(function)?;
        State::begin(&mut self.store);
        let guard = self.hook.runtime.running();
        let outcome = if self.hook.is_wasi {
            block_on(&self.hook, callee.call_async(&mut self.store, input))?
        } else {
            callee.call(&mut self.store, input)
        };
        drop(guard);
        outcome.map_err(|error| fault(&self.store, &error))
    }
}

/// Waits for a guest that may itself wait, but not for ever.
fn block_on<T>(hook: &Hook, call: impl Future<Output = T>) -> Result<T, Fault> {
    let runtime = tokio::runtime::Handle::try_current().map_err(|_| Fault::Lost)?;
    let patience = Duration::from_millis(hook.surroundings.limits.cpu_ms) * 4 + WAIT;
    let wait_ms = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
    runtime.block_on(async { tokio::time::timeout(patience, call).await }).map_err(|_| Fault::Wait(wait_ms))
}

/// What an error of the engine means to an operator.
fn fault(store: &Store<State>, error: &wasmtime::Error) -> Fault {
    let state = store.data();
    let limits = state.limits();
    let trap = match error.downcast_ref::<Trap>() {
        Some(trap) => trap.to_string(),
        None => error.root_cause().to_string(),
    };
    if state.timed_out {
        Fault::Time(limits.cpu_ms)
    } else if state.starved {
        Fault::Memory { limit_bytes: limits.memory_bytes, trap }
    } else if trap.contains("too much data is being copied") {
        // The engine has no type for it; a test holds the text.
        Fault::Output(limits.output_bytes)
    } else {
        Fault::Trap(trap)
    }
}
