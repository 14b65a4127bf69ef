//! Tests of text generation that hold for every engine: what a stream yields must not depend on what runs beside it, on
//! what is cached, or on whether it was interrupted.
//!
//! A plugin's test calls [`behaviours!`](crate::behaviours) with a function that loads SmolLM2-135M-Instruct with the
//! options that it is given, or returns `None` after it has said loudly why it cannot.
#![expect(clippy::unwrap_used, reason = "tests")]

pub mod behaviour;
pub mod support;

/// Loads the model with options.
pub type Load = fn(serde_json::Value) -> Option<Box<dyn pajamas_plugin_api::Model>>;

/// Makes a test of each behaviour, for the model that `$load` loads.
#[macro_export]
macro_rules! behaviours {
    ($load:path) => {
        $crate::behaviours! {
            $load:
            a_question_is_answered
            sixteen_streams_give_what_each_gives_alone
            a_cached_prefix_changes_nothing_but_the_time
            a_resumed_stream_continues_token_by_token
            the_seed_decides_a_sampled_stream
            grammars_hold
            logprobs_are_ordered_and_fit_the_choice
            streams_end_where_they_are_told
            a_full_queue_refuses_and_a_deadline_ends_a_stream
            a_cancelled_prompt_stops_at_once_and_disturbs_nobody
            random_cancels_leave_nothing_behind
        }
    };
    ($load:path: $($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                $crate::behaviour::$name($load);
            }
        )*
    };
}
