"""What the pages of four neighbouring systems promise, row by row, and the tests that hold each promise here.

A proof is a test of this folder, or `path::test` of another one.
"""

from __future__ import annotations

from dataclasses import dataclass

AGENT = "runtime/test_agent.py::"
CONTEXT = "prompts/test_context.py::"
EXECUTION = "prompts/test_execution.py::"
HOOKS = "runtime/test_hooks.py::"
LITELLM = "models/test_litellm_model.py::"
PAGE_000 = "flows/test_seed_contexts.py::"
RETRY = "runtime/test_retry.py::"
TOOLS = "tools/test_function_tool.py::"
TRACING = "runtime/test_tracing.py::"


@dataclass(frozen=True)
class Row:
    """One promise, as it can be checked, and its proofs."""

    text: str
    proofs: tuple[str, ...]


def row(text: str, *proofs: str) -> Row:
    return Row(text, proofs)


MYCONTEXT = {
    "s0_01": row(
        "a prompt of role, goal and directive: all three are in the request",
        PAGE_000 + "test_basic_usage",
        EXECUTION + "test_a_provider_alone_takes_its_default_model",
    ),
    "s0_02": row(
        "role and goal are in the system turn, the directive is the user turn",
        EXECUTION + "test_a_provider_alone_takes_its_default_model",
        CONTEXT + "test_guidance_and_constraints_are_the_system_turn_and_the_directive_is_the_user_turn",
    ),
    "s0_03": row(
        "gathered runs of several providers take as long as the slowest",
        PAGE_000 + "test_concurrent_executions_are_all_in_flight_at_once",
        EXECUTION + "test_providers_mix_and_all_are_in_flight_at_once",
    ),
    "s0_04": row(
        "200 runs are in flight at once, without a thread pool",
        "test_two_hundred_contexts_without_async_with_are_in_flight_at_once",
    ),
    "s0_05": row("a run does not hold the loop", "test_the_loop_turns_while_models_think"),
    "s0_06": row("20 requests go through a web handler at once", EXECUTION + "test_a_web_handler_needs_no_thread_pool"),
    "s0_07": row(
        "with `stream=True` the request streams and the response is the whole text",
        PAGE_000 + "test_streaming_and_provider_configuration",
        EXECUTION + "test_a_stream_is_one_on_the_wire_and_the_result_is_whole",
    ),
    "s0_08": row(
        "temperature, max_tokens and api_key of a call are in its request",
        PAGE_000 + "test_streaming_and_provider_configuration",
        EXECUTION + "test_settings_and_key_of_a_call_are_sent_and_kept_nowhere",
        EXECUTION + "test_execute_works_from_any_thread",
    ),
    "s0_09": row(
        "every provider's wire format is hit, also when no model is given",
        EXECUTION + "test_a_provider_alone_takes_its_default_model",
        EXECUTION + "test_a_model_is_named_with_or_without_its_provider",
        EXECUTION + "test_google_is_gemini",
    ),
    "s0_10": row(
        "400, 401 and 404 are one request and an error with the status",
        PAGE_000 + "test_error_handling",
        EXECUTION + "test_an_error_nothing_can_mend_is_one_request_and_typed",
    ),
    "s0_11": row(
        "`retries=2` is three requests, whatever the status",
        EXECUTION + "test_two_retries_are_three_requests_whatever_the_status",
        "models/test_litellm_failures.py::test_the_status_decides",
    ),
    "s0_12": row(
        "waits between tries grow, up to the most",
        RETRY + "test_waits_double_up_to_the_most_with_full_jitter",
    ),
    "s0_13": row(
        "the next try is not earlier than Retry-After",
        EXECUTION + "test_a_retry_mends_and_retry_after_is_kept",
        RETRY + "test_never_earlier_than_the_provider_asked",
    ),
    "s0_14": row(
        "a timeout bounds a server that hangs",
        EXECUTION + "test_a_timeout_bounds_all_tries_and_names_its_argument",
        LITELLM + "test_the_time_limit_is_kept_and_closes_the_request",
    ),
    "s0_15": row("a cancelled run hangs up", EXECUTION + "test_cancelling_ends_the_request"),
    "s0_16": row(
        "the same prompt twice is two requests",
        EXECUTION + "test_settings_and_key_of_a_call_are_sent_and_kept_nowhere",
    ),
    "s0_17": row(
        "the span of a run has its model, tokens, cost and latency",
        PAGE_000 + "test_how_it_works",
        TRACING + "test_the_last_span_after_a_run_has_its_model_tokens_cost_and_latency",
    ),
    "s0_18": row(
        "gathered runs are not each other's children",
        EXECUTION + "test_gathered_runs_are_no_children_of_each_other",
        TRACING + "test_gathered_runs_are_nobodys_children_and_each_has_its_trace",
    ),
    "s0_19": row(
        "the span of a failure is an error, and every try has one",
        TRACING + "test_every_request_to_the_server_is_one_span_and_failed_tries_are_errors",
        TRACING + "test_a_failed_run_is_an_error_and_says_what_it_spent",
    ),
    "s0_20": row(
        "runs in other threads are seen, under the same names",
        TRACING + "test_runs_without_await_and_in_threads_are_seen_under_the_same_names",
    ),
    "s0_21": row(
        "after an error another provider can be asked",
        EXECUTION + "test_an_error_nothing_can_mend_is_one_request_and_typed",
    ),
    "s0_22": row(
        "an unknown provider is an error that lists the known ones",
        EXECUTION + "test_wrong_arguments_are_named_before_any_request",
    ),
    "s0_23": row(
        "different contexts go to different providers at once",
        PAGE_000 + "test_concurrent_executions_are_all_in_flight_at_once",
        PAGE_000 + "test_contexts_are_gathered",
    ),
}

SHIPIT = {
    "s1_01": row(
        "a run returns text, the turns user, assistant, tool, assistant, and its usage",
        "test_a_result_has_text_turns_and_the_sum_of_what_was_used",
    ),
    "s1_02": row(
        "a stream has its events in order",
        "test_a_stream_has_its_events_in_order_each_one_line_of_json",
        AGENT + "test_a_stream_tells_what_happens",
    ),
    "s1_03": row("text arrives while the model is still writing", "test_text_arrives_while_the_model_is_still_writing"),
    "s1_04": row("each event is one line of JSON", "test_a_stream_has_its_events_in_order_each_one_line_of_json"),
    "s1_05": row("tools of one turn overlap", "test_sync_tools_of_one_turn_overlap_and_keep_their_order"),
    "s1_06": row("switched off, they do not", "test_switched_off_they_run_one_after_the_other"),
    "s1_07": row("24 sync tools overlap", "test_sync_tools_of_one_turn_overlap_and_keep_their_order"),
    "s1_08": row("an async tool is awaited", "test_async_tools_are_awaited_on_the_loop_and_sync_ones_run_in_threads"),
    "s1_09": row(
        "a context variable can be read in a sync tool", "test_sync_tools_of_one_turn_overlap_and_keep_their_order"
    ),
    "s1_10": row(
        "hooks are called in order and as often as it happens",
        "test_hooks_are_called_in_order_and_a_veto_is_a_tool_error",
        HOOKS + "test_each_method_is_called_in_order_and_as_often_as_it_happens",
    ),
    "s1_11": row("an async hook is awaited", "test_hooks_are_called_in_order_and_a_veto_is_a_tool_error"),
    "s1_12": row(
        "a veto reaches the model as a tool error and the tool does not run",
        "test_hooks_are_called_in_order_and_a_veto_is_a_tool_error",
        HOOKS + "test_a_veto_reaches_the_model_as_a_tool_error_and_the_tool_does_not_run",
    ),
    "s1_13": row(
        "no request is over the context window",
        "test_no_request_is_over_the_window_and_the_question_stays",
        "test_without_a_window_everything_is_sent",
    ),
    "s1_14": row(
        "the question stays, no tool message is an orphan, and an event says what was left out",
        "test_no_request_is_over_the_window_and_the_question_stays",
    ),
    "s1_15": row(
        "the last turn fits into the window too",
        "test_the_last_turn_fits_too_has_no_tools_and_says_why_it_stopped",
    ),
    "s1_16": row(
        "every two turns the model makes a plan, which stands in what follows",
        "test_a_plan_is_made_by_the_model_and_stands_in_what_follows",
    ),
    "s1_17": row("a single 429 is an event of the stream", "test_a_single_429_is_told"),
    "s1_18": row(
        "at max_iterations one request without tools gives a text, and the stop reason says so",
        "test_the_last_turn_fits_too_has_no_tools_and_says_why_it_stopped",
    ),
    "s1_19": row("every exception of a tool reaches the model", "test_every_exception_of_a_tool_reaches_the_model"),
    "s1_20": row(
        "unknown tools and malformed arguments survive, and every request is well-formed",
        "test_malformed_calls_survive_and_every_request_is_well_formed",
    ),
    "s1_21": row("a flaky tool recovers", "test_a_flaky_tool_recovers_when_the_model_calls_again"),
    "s1_22": row(
        "three turns have one system message, then user and assistant alternate",
        "test_three_turns_have_one_system_message_and_alternate",
    ),
    "s1_23": row("another object on the same store remembers", "test_another_object_on_the_same_store_remembers"),
    "s1_24": row(
        "turns of one conversation that come at once all stay",
        "test_turns_that_come_at_once_queue_up_and_all_stay",
        "test_turns_of_two_objects_on_one_store_all_stay",
        "test_other_conversations_do_not_wait",
    ),
    "s1_25": row("no id leads out of the store", "test_an_id_does_not_lead_out_of_the_store"),
    "s1_26": row("after a failed turn the history alternates", "test_a_failed_turn_leaves_the_history_alternating"),
    "s1_27": row(
        "the trace of an event is read back from run_started to run_completed",
        "test_a_trace_is_read_back_from_start_to_end",
    ),
    "s1_28": row(
        "the stream and the trace of a failed run end with run_failed",
        "test_a_failed_or_cut_stream_is_an_error",
        "test_the_trace_of_a_failed_run_says_so",
    ),
    "s1_29": row(
        "facts are found by their words and survive",
        "test_facts_are_found_by_their_words_and_survive",
    ),
    "s1_30": row(
        "128 runs are in flight at once",
        "test_a_hundred_and_twenty_eight_runs_with_blocking_tools_leave_the_hosts_threads_alone",
    ),
    "s1_31": row(
        "the host's `asyncio.to_thread` is free while tools block",
        "test_a_hundred_and_twenty_eight_runs_with_blocking_tools_leave_the_hosts_threads_alone",
    ),
    "s1_32": row("leaving a stream aborts its request", "test_leaving_a_stream_aborts_the_request"),
    "s1_33": row("two streams of one agent are each complete", "test_two_streams_of_one_agent_are_each_complete"),
    "s1_34": row("an error of a stream is raised", "test_a_failed_or_cut_stream_is_an_error"),
    "s1_35": row(
        "a stream that was cut is not a success",
        "test_a_failed_or_cut_stream_is_an_error",
        EXECUTION + "test_a_cut_stream_is_an_error",
    ),
    "s1_36": row(
        "an int is an integer and a list of texts an array of strings",
        "test_the_schema_on_the_wire_is_that_of_the_signature",
        TOOLS + "test_schema_and_descriptions_come_from_the_function",
    ),
    "s1_37": row(
        "the usage of a run is the sum of what the server counted",
        "test_a_result_has_text_turns_and_the_sum_of_what_was_used",
    ),
    "s1_38": row(
        "the last event of a stream has the usage too", "test_a_stream_has_its_events_in_order_each_one_line_of_json"
    ),
    "s1_39": row("results stand in the order of the calls", "test_sync_tools_of_one_turn_overlap_and_keep_their_order"),
    "s1_41": row(
        "tools of MCP servers are offered and called, and the process is gone after success and failure",
        "test_an_mcp_server_is_offered_called_and_gone_after_success_and_failure",
        "tools/test_mcp.py::test_a_stubborn_server_and_all_its_descendants_end",
    ),
}

CEYLON = {
    "s2_01": row(
        "roles are system and user, the settings are in the request, the text is unchanged",
        "test_instructions_and_settings_are_on_the_wire_and_the_text_is_unchanged",
    ),
    "s2_02": row(
        "five questions to one agent are in flight at once, answers in order",
        "test_five_questions_are_in_flight_at_once_in_order_and_know_nothing_of_each_other",
    ),
    "s2_03": row(
        "no request contains another's text",
        "test_five_questions_are_in_flight_at_once_in_order_and_know_nothing_of_each_other",
    ),
    "s2_04": row("answers come as they are ready", "test_answers_come_as_they_are_ready"),
    "s2_05": row("with FIRST_COMPLETED", "test_answers_come_as_they_are_ready"),
    "s2_06": row("with asyncio.as_completed", "test_answers_come_as_they_are_ready"),
    "s2_07": row("a batch has at most three in flight", "test_a_batch_slides_and_failures_stay_in_place"),
    "s2_08": row("a slow prompt of a batch holds up nobody", "test_a_batch_slides_and_failures_stay_in_place"),
    "s2_09": row("failures of a batch stay in their places", "test_a_batch_slides_and_failures_stay_in_place"),
    "s2_10": row("what succeeded and what failed can be counted", "test_a_batch_slides_and_failures_stay_in_place"),
    "s2_11": row("a semaphore bounds the runs", "test_a_semaphore_of_the_caller_bounds_the_runs"),
    "s2_12": row("an empty prompt is a ValueError before any request", "test_errors_are_caught_one_by_one"),
    "s2_13": row("10,000 characters are sent whole", "test_errors_are_caught_one_by_one"),
    "s2_15": row(
        "a query that times out is aborted, and the next request knows nothing of it",
        "test_a_query_that_times_out_is_aborted_and_forgotten",
    ),
    "s2_16": row(
        "a generator shows the progress, in the order of the answers",
        "test_answers_come_as_they_are_ready",
        "runtime/test_agent_rounds.py::test_as_completed_yields_in_the_order_of_completion",
    ),
    "s2_17": row(
        "without a loop questions go one after the other", "test_without_a_loop_questions_go_one_after_the_other"
    ),
    "s2_18": row("a failed question raises", "test_a_failed_question_raises_and_leaves_the_history_sound"),
    "s2_19": row("and leaves the history sound", "test_a_failed_question_raises_and_leaves_the_history_sound"),
    "s2_20": row("what is no text is refused before any request", "test_what_is_no_text_is_refused_before_any_request"),
    "s2_21": row(
        "300 questions to one agent are in flight at once",
        "test_three_hundred_questions_to_one_agent_are_in_flight_at_once",
    ),
    "s2_no_loop": row("a call without await only warns", "test_a_call_without_await_only_warns"),
}

WAYFLOW = {
    "s3_01": row("a bare model call is one user message, with usage", "test_a_bare_model_call_is_one_user_message"),
    "s3_02": row(
        "one turn of an agent has the roles system and user",
        "test_one_turn_of_an_agent_is_a_system_and_a_user_message",
    ),
    "s3_03": row(
        "the second step of a flow sees the first's answer",
        "test_the_second_step_of_a_flow_sees_the_answer_of_the_first",
    ),
    "s3_04": row("the same runs under anyio", "test_the_same_run_under_anyio"),
    "s3_05": row(
        "sync tools run in threads, async ones on the loop, which goes on",
        "test_the_loop_goes_on_while_a_sync_tool_works",
        "test_async_tools_are_awaited_on_the_loop_and_sync_ones_run_in_threads",
    ),
    "s3_06": row("calls of one turn overlap", "test_sync_and_async_calls_of_one_turn_overlap"),
    "s3_07": row(
        "100 agents in a task group, bound by a semaphore",
        "test_many_agents_in_a_task_group_bound_by_a_semaphore",
    ),
    "s3_08": row(
        "the value of a variable is in the system text",
        "test_a_value_of_a_run_is_in_the_instructions_and_a_missing_one_is_named",
        "test_a_value_of_a_template_is_in_the_system_text_and_a_missing_one_is_named",
        CONTEXT + "test_variables_fill_every_part_once",
    ),
    "s3_09": row(
        "a missing variable is an error that names it, before any request",
        "test_a_value_of_a_run_is_in_the_instructions_and_a_missing_one_is_named",
        "test_a_value_of_a_template_is_in_the_system_text_and_a_missing_one_is_named",
        CONTEXT + "test_a_missing_or_unknown_variable_is_named",
        "prompts/test_library.py::test_wrong_arguments_are_named",
    ),
    "s3_10": row("the sync face works in sync code without a warning", "test_sync_code_runs_without_a_warning"),
    "s3_11": row(
        "in async code it raises an error that names what to await",
        "test_async_code_is_told_what_to_await_at_its_own_line",
        EXECUTION + "test_execute_refuses_to_block_a_running_loop",
    ),
    "s3_12": row("and points at the caller's line", "test_async_code_is_told_what_to_await_at_its_own_line"),
    "s3_13": row("it works in worker threads of asyncio and anyio", "test_it_works_in_worker_threads_of_either_runner"),
    "s3_14": row(
        "an export has the keys of Agent Spec, in JSON and YAML",
        "test_a_document_has_the_keys_of_its_format",
        "agentspec/test_export.py::test_an_agent_of_python_is_a_plain_agent_for_pyagentspec",
    ),
    "s3_15": row(
        "no key is in it", "agentspec/test_export.py::test_an_agent_of_python_is_a_plain_agent_for_pyagentspec"
    ),
    "s3_16": row(
        "pyagentspec alone loads it as a plain Agent",
        "agentspec/test_export.py::test_an_agent_of_python_is_a_plain_agent_for_pyagentspec",
    ),
    "s3_17": row(
        "tools of a document are bound by name to the same functions",
        "test_a_document_written_by_hand_runs_with_its_tool",
    ),
    "s3_18": row(
        "a document written by hand, with references, runs",
        "test_a_document_written_by_hand_runs_with_its_tool",
    ),
    "s3_19": row(
        "a missing tool, an unknown type or version and a missing secret are named",
        "test_what_cannot_be_loaded_is_named",
    ),
    "s3_20": row(
        "exported, loaded and exported again is the same document",
        "test_exported_loaded_and_exported_again_is_the_same",
    ),
    "s3_21": row(
        "an invalid structured answer is asked for again",
        "test_an_invalid_answer_is_asked_for_again_and_is_an_error_in_the_end",
    ),
    "s3_22": row(
        "and is an error in the end, never filled in",
        "test_an_invalid_answer_is_asked_for_again_and_is_an_error_in_the_end",
    ),
    "s3_23": row("turns of one conversation stay paired", "test_turns_of_one_conversation_stay_paired"),
}

LOAD = {
    "200_runs": row(
        "at least 190 of 200 runs are in flight at once",
        "test_two_hundred_contexts_without_async_with_are_in_flight_at_once",
    ),
    "128_runs": row(
        "128 runs with sync tools do not starve the host's threads",
        "test_a_hundred_and_twenty_eight_runs_with_blocking_tools_leave_the_hosts_threads_alone",
    ),
    "cancelled": row(
        "when a run, a stream, a batch or a pool is cancelled, the server sees the hang-up and no task is left",
        "test_cancelling_hangs_up_and_leaves_no_task",
    ),
}

ROWS: dict[str, Row] = {**MYCONTEXT, **SHIPIT, **CEYLON, **WAYFLOW, **LOAD}
