"""What went wrong in the predecessor between an event and the agent it was for."""

from __future__ import annotations

from defects import defect, trigger

FILE = "type: file, paths: [in]"
WEBHOOK = "type: webhook"
SCHEDULE = "type: schedule, prompt: Go"
EMAIL = trigger("type: ⟦email, host: imap.example.org, username: me, password: x, folder: INBOX, mark_seen: true")
CONNECTION = trigger("type: ⟦connection, source: b, event: message_received, condition: {words: [a], mode: all}")
STATUSES = "triggers/test_webhook_trigger.py::test_the_first_fault_answers"
SLOW = "flows/test_dropped_files.py::test_a_slow_writer_is_run_once_with_the_whole_content"
DOWN = "flows/test_dropped_files.py::test_files_dropped_while_down_stopped_or_running_are_each_run_once"
KILLED = "flows/test_crashes.py::test_kill_9_under_load_loses_nothing_and_repeats_no_unmarked_call"
PAGE = "flows/test_seed_page.py::test_events_are_set_up_and_cancellation_is_a_clean_shutdown"
BREAKS = "test_a_trigger_that_breaks_is_armed_again_and_harms_no_other"

COMMON = {
    "4.a.1": defect(
        "an exception from the run drops the event: no retry, no dead letter",
        "test_a_failed_run_is_tried_again_and_then_kept_as_dead",
        "engines/test_conformance.py::test_after_its_attempts_a_delivery_is_dead",
    ),
    "4.a.2": defect("an exception in a source ends its trigger for good while the process looks healthy", BREAKS),
    "4.b.1": defect("accepted events live in memory: a crash loses those queued and running", KILLED),
    "4.b.2": defect("events that come while it is down are missed", DOWN),
    "4.b.3": defect(
        "no event id, no deduplication, no record", "test_every_event_has_an_id_and_a_record_and_is_taken_once"
    ),
    "4.c.1": defect("`enabled: false` aborts the start of the pool", PAGE),
    "4.c.2": defect("a `connection` trigger aborts the start of the pool", CONNECTION),
    "4.d.1": defect(
        "one bad trigger aborts the whole pool",
        BREAKS,
        "test_every_trigger_that_cannot_be_armed_is_named_at_the_start",
    ),
    "4.d.2": defect("one bad MCP server aborts the whole pool", "test_a_broken_mcp_server_leaves_the_pool_alone"),
    "4.e.1": defect("no limit of concurrency", "test_runs_have_limits_of_number_and_time"),
    "4.e.2": defect("no limit of rate", "test_what_is_wrong_with_a_post_has_a_status_of_its_own"),
    "4.e.3": defect("no limit of time of a run", "test_runs_have_limits_of_number_and_time"),
    "4.e.4": defect("no cap of cost", "runtime/test_agent.py::test_limits_end_a_run_and_name_their_key"),
    "4.e.5": defect("no pause of a trigger", trigger(f"{FILE}, ⟦paused: true"), trigger(f"{WEBHOOK}, ⟦pause: true")),
    "4.f.1": defect(
        "no loop guard: an agent whose answers are written into the folder it watches triggers itself",
        "test_an_agent_that_writes_where_it_watches_is_refused",
        "manifest/test_planted_mistakes.py::test_every_mistake_has_its_place",
    ),
    "4.f.2": defect("a cycle of agents has no end", "test_a_message_that_goes_round_in_a_circle_ends_as_dead"),
    "4.g.1": defect(
        "the prompt is a fixed sentence and `template` is ignored",
        "test_the_prompt_is_a_template",
        trigger(f'{FILE}, ⟦template: "x", ⟦include_metadata: true, ⟦include_timestamp: true'),
        trigger(f'{WEBHOOK}, ⟦template: "x", ⟦include_metadata: true, ⟦include_timestamp: true'),
        trigger(f'{SCHEDULE}, every_s: 5, ⟦template: "x", ⟦include_metadata: true, ⟦include_timestamp: true'),
    ),
    "4.g.2": defect(
        "a payload cannot be routed to different agents by its content",
        "test_the_content_decides_which_agent_runs",
    ),
    "4.h": defect(
        "a missing optional library is an error at the start",
        "test_a_plain_installation_brings_everything_that_is_imported",
    ),
    "4.i": defect("triggers of teams are ignored without a word", "test_triggers_of_teams_run_the_team"),
    "4.0.1": defect(
        "events of one agent that overlap share one conversation", "test_events_that_overlap_share_no_history"
    ),
    "4.0.2": defect("one event at a time per source", "test_many_writes_are_one_run_per_file_and_runs_overlap"),
    "4.0.3": defect(
        "triggers start before the MCP servers of their agent, whose tools the first events then lack",
        "test_an_event_waits_for_the_mcp_server_of_its_agent",
    ),
    "4.0.4": defect(
        "the answer goes nowhere but to connections and history",
        "test_file_sinks_need_no_template_append_and_fill_their_path_in",
    ),
}

FILES = {
    "4.file.1": defect(
        "globs never fire, without a word", "test_globs_folders_and_files_fire_also_when_they_come_later", PAGE
    ),
    "4.file.2": defect(
        "a missing folder ends the trigger at the start",
        "test_globs_folders_and_files_fire_also_when_they_come_later",
        "triggers/test_file_trigger.py::test_a_missing_folder_is_waited_for",
    ),
    "4.file.3": defect(
        "without `extensions` temporary files fire and what is to be ignored is not",
        "test_ignoring_takes_patterns_and_needs_no_extensions",
        "triggers/test_file_trigger.py::test_names_of_unfinished_and_hidden_files_are_never_taken",
    ),
    "4.file.4": defect(
        "`ignore_paths` are prefixes, not patterns",
        "test_ignoring_takes_patterns_and_needs_no_extensions",
        trigger(f"{FILE}, ⟦ignore_paths: [in/a]"),
    ),
    "4.file.5": defect(
        "`debounce` is no shortest time between triggers, and `recursive` a second way to say a glob",
        trigger(f"{FILE}, ⟦debounce: 1600, ⟦recursive: false"),
        "triggers/test_file_settling.py::test_slow_writers_give_one_event_each_with_the_whole_content",
    ),
    "4.file.6": defect(
        "large or slow writes are seen half written", "test_a_file_is_read_when_its_writer_has_finished", SLOW
    ),
    "4.file.7": defect(
        "10 files and 30 appends are 20 runs, strictly one after another",
        "test_many_writes_are_one_run_per_file_and_runs_overlap",
    ),
    "4.file.8": defect(
        "changes during a run merge, in arbitrary order", "test_a_change_during_a_run_is_an_event_of_its_own"
    ),
    "4.file.9": defect(
        "added, modified and deleted all fire and cannot be chosen",
        "triggers/test_file_changes.py::test_only_the_events_that_are_asked_for",
        "triggers/test_file_changes.py::test_matrix_of_rename_replace_touch_and_chmod",
    ),
    "4.file.10": defect(
        "the prompt holds no text, the event no hash and no time of the file",
        "test_the_agent_gets_the_text_and_the_event_the_facts",
    ),
    "4.file.11": defect(
        "files present at the start or dropped while down are never processed",
        "test_files_there_before_or_dropped_while_down_are_run_once",
        DOWN,
    ),
    "4.file.12": defect(
        "files are not moved when they are done or have failed", "test_files_move_when_their_event_is_done_or_dead"
    ),
}

WEBHOOKS = {
    "4.webhook.1": defect(
        "it binds 0.0.0.0, always", "test_it_listens_on_this_machine_only", "test_another_address_needs_a_secret"
    ),
    "4.webhook.2": defect("its queue in memory has no bound", "test_a_full_inbox_is_told_to_the_sender"),
    "4.webhook.3": defect(
        "agent and pool never finish starting", "test_the_pool_comes_up_and_a_post_runs_the_agent", PAGE
    ),
    "4.webhook.4": defect("every POST gets 422", "test_the_pool_comes_up_and_a_post_runs_the_agent"),
    "4.webhook.5": defect(
        "past that, building the event fails with 500", "test_the_pool_comes_up_and_a_post_runs_the_agent"
    ),
    "4.webhook.6": defect("two triggers on one port end the process", "test_two_triggers_share_one_port"),
    "4.webhook.7": defect(
        "the signature is no format any sender uses",
        "test_a_secret_comes_from_the_environment_and_githubs_own_signature_is_asked_for",
        "server/test_auth.py::test_github_vector_of_its_documentation",
        trigger(f"{WEBHOOK}, ⟦secret: abc"),
    ),
    "4.webhook.8": defect(
        "a wrong signature is answered with 200",
        "test_a_secret_comes_from_the_environment_and_githubs_own_signature_is_asked_for",
        "server/test_auth.py::test_one_change_is_refused_with_a_reason_that_tells_no_secret",
    ),
    "4.webhook.9": defect("no secret means open to the network", "test_another_address_needs_a_secret"),
    "4.webhook.10": defect("no limit of the body", "test_what_is_wrong_with_a_post_has_a_status_of_its_own", STATUSES),
    "4.webhook.11": defect(
        "a body that is not JSON is a 500", "test_what_is_wrong_with_a_post_has_a_status_of_its_own"
    ),
    "4.webhook.12": defect(
        "no parameters in the path",
        trigger(f'{WEBHOOK}, path: ⟦"/hooks/{{path}}"'),
        trigger(f'{WEBHOOK}, path: ⟦"/hooks/*"'),
    ),
    "4.webhook.13": defect(
        "no GET and no handshake to verify the address",
        trigger(f"{WEBHOOK}, ⟦methods: [GET], ⟦verify_token: abc"),
        "triggers/test_webhook_trigger.py::test_get_and_head_are_no_way_to_post",
    ),
    "4.webhook.14": defect(
        "no limit of rate of POSTs", "test_what_is_wrong_with_a_post_has_a_status_of_its_own", STATUSES
    ),
    "4.webhook.15": defect(
        "no idempotency key",
        "test_every_event_has_an_id_and_a_record_and_is_taken_once",
        "triggers/test_webhook_engine.py::test_a_replay_storm_is_one_run",
    ),
    "4.webhook.16": defect("no TLS", trigger(f"{WEBHOOK}, ⟦tls: true, ⟦certfile: a.pem, ⟦keyfile: b.pem")),
    "4.webhook.17": defect("no health route", "test_the_answer_names_the_event_and_where_to_ask_for_it"),
    "4.webhook.18": defect(
        "no result and no id in the answer",
        "test_the_answer_names_the_event_and_where_to_ask_for_it",
        "test_the_answer_itself_can_be_the_reply",
    ),
    "1.env": defect(
        "a secret written ${NAME} becomes that text",
        "test_a_secret_comes_from_the_environment_and_githubs_own_signature_is_asked_for",
    ),
}

OTHER_SOURCES = {
    "4.time.1": defect("ticks during a long run are skipped", "test_ticks_during_a_long_run_are_not_skipped"),
    "4.time.2": defect(
        "ticks missed while down never run and `skip_missed` means nothing",
        "triggers/test_schedule_trigger.py::test_ticks_missed_while_down_for_three_hours",
        trigger(f'{SCHEDULE}, cron: "0 2 * * *", ⟦skip_missed: true'),
    ),
    "4.time.3": defect(
        "leaving waits for the next tick",
        "test_leaving_does_not_wait_for_a_tick",
        trigger('type: ⟦time, schedule: "0 2 * * *", prompt: Go'),
    ),
    "4.email.1": defect("the search criteria are inverted", EMAIL),
    "4.email.2": defect("mails are marked as seen before they are handed over", EMAIL),
    "4.email.3": defect("what was fetched is read in the shape of another library", EMAIL),
    "4.email.4": defect("a lost connection is not made again", EMAIL),
    "4.connection.1": defect("the event of a connection trigger is never compared", CONNECTION),
    "4.connection.2": defect("`mode: all` of a connection trigger is ignored", CONNECTION),
    "4.manual": defect("the documented `type: manual` does not exist", trigger("type: ⟦manual")),
}

SHUTDOWN = {
    "4.shutdown.1": defect("SIGINT and SIGTERM do not end it", "test_a_signal_ends_it_in_order"),
    "4.shutdown.2": defect("SIGINT ends it with a traceback", "test_a_signal_ends_it_in_order"),
    "4.shutdown.3": defect("SIGTERM ends it without cleaning up", "test_a_signal_ends_it_in_order"),
    "4.shutdown.4": defect(
        "leaving waits for what is running without a deadline",
        "test_leaving_has_a_deadline_and_the_rest_goes_on_at_the_next_start",
    ),
    "4.shutdown.5": defect(
        "what was not finished is not queued again",
        "test_leaving_has_a_deadline_and_the_rest_goes_on_at_the_next_start",
        "test_what_a_signal_cut_off_is_finished_by_the_next_process",
    ),
}
