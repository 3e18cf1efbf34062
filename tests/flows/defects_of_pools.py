"""What went wrong in the predecessor around its triggers: keys, routing, commands, pool and package."""

from __future__ import annotations

from defects import Absent, agent, connection, defect, root, trigger

FILE = "type: file, paths: [in]"
JOBS = root("⟦jobs:\n  report: {prompt: Write the report}")
STORAGE = root("⟦storage: {providers: []}")

POOL = {
    "5.1": defect("knowledge is never loaded", "test_knowledge_reaches_the_model"),
    "5.2.1": defect(
        "two connections of one agent fail at construction", "test_one_agent_feeds_several_targets_and_a_team"
    ),
    "5.2.2": defect("a team as target is refused", "test_one_agent_feeds_several_targets_and_a_team"),
    "5.3.1": defect(
        "`and` and `or` conditions reject any child with fields",
        "test_conditions_combine_and_false_is_false",
        connection("⟦filter_condition: {type: and, conditions: []}, ⟦stop_condition: {}, ⟦exit_condition: {}"),
    ),
    "5.3.2": defect("a template that says False lets the message pass", "test_conditions_combine_and_false_is_false"),
    "5.4.1": defect("transform() has no effect", "test_a_transform_changes_what_the_target_gets"),
    "5.4.2": defect("`delay` and `priority` are ignored", connection("⟦delay: 5, ⟦priority: 1")),
    "5.4.3": defect("a delayed context message never arrives", connection("⟦connection_type: context, ⟦delay: 5")),
    "5.5.1": defect(
        "a file connection with its default template fails",
        "test_file_sinks_need_no_template_append_and_fill_their_path_in",
        connection("⟦type: file"),
    ),
    "5.5.2": defect(
        "a file connection with a template overwrites the file",
        "test_file_sinks_need_no_template_append_and_fill_their_path_in",
        agent('sinks: [{type: file, path: out.md, ⟦template: "x", ⟦encoding: utf-8}]'),
    ),
    "5.5.3": defect(
        "a file connection leaves {date} in the path as it is",
        "test_file_sinks_need_no_template_append_and_fill_their_path_in",
    ),
    "5.6": defect("a job without a return type fails to load", JOBS),
    "5.7.1": defect(
        "`session=False` keeps the history",
        "test_runs_keep_no_history_and_a_session_keeps_all_of_it",
        agent("session: ⟦false"),
    ),
    "5.7.2": defect(
        "`session=True` keeps one token of it",
        "test_runs_keep_no_history_and_a_session_keeps_all_of_it",
        agent("session: ⟦true"),
    ),
    "5.8.1": defect(
        "each run of a team leaves dead connections on its members",
        "test_teams_leave_nothing_behind_on_their_members",
    ),
    "5.8.2": defect(
        "each connection keeps all messages for ever", "test_messages_are_not_kept_after_they_were_delivered"
    ),
    "5.9": defect(
        "tools of capabilities never appear",
        agent("⟦capabilities: {can_load_resources: true}, ⟦environment: env.yml"),
    ),
    "5.10.1": defect(
        "writes to the store block the event loop", "test_a_store_that_is_locked_does_not_hold_up_the_loop"
    ),
    "5.10.2": defect(
        "agents added later write to a store that was switched off",
        "test_an_engine_in_memory_writes_no_file",
        "test_a_pool_without_triggers_writes_no_file",
        STORAGE,
    ),
    "5.11": defect(
        "each run tries to download a price table, with a traceback when offline",
        "test_a_run_reaches_for_nothing_but_its_model",
    ),
    "5.12": defect("AgentPool(Path(...)) is refused", "test_a_manifest_may_be_a_path_or_its_text"),
    "5.13.1": defect(
        "the published wheel omits packages",
        "test_the_wheel_holds_every_module",
        agent("⟦toolsets: []"),
        root("⟦pool_server: {enabled: true}"),
    ),
    "5.13.2": defect(
        "a plain installation cannot start a pool: a dependency is for developers only",
        "test_a_plain_installation_brings_everything_that_is_imported",
    ),
    "5.13.3": defect(
        "with a new release of a dependency it cannot be imported",
        "test_no_later_major_release_of_a_dependency_is_taken_unseen",
    ),
}

ROUTING = {
    "2.1": defect(
        "run() waits for every target, one after the other, whatever it was told",
        "runtime/test_nodes.py::test_run_returns_before_its_targets_unless_asked_to_wait",
        "runtime/test_nodes.py::test_fan_out_and_fan_in",
    ),
    "2.2": defect(
        "a target that fails makes the run of its source fail",
        "runtime/test_nodes.py::test_a_failing_target_never_fails_its_source",
    ),
    "2.3": defect("a cycle ends with RecursionError", "runtime/test_nodes.py::test_a_full_cycle_does_not_deadlock"),
    "2.4": defect(
        "rounds in the background go on after the agent was left",
        "runtime/test_agent_rounds.py::test_leaving_an_agent_ends_its_background_rounds",
    ),
}

COMMANDS = {
    "3.1": defect("`run NODE` runs whichever node came last", "test_run_asks_the_agent_it_was_told"),
    "3.2": defect(
        "`watch --config`, as documented, is an unknown option", "test_a_command_that_is_absent_is_refused_by_name"
    ),
    "3.3": defect("`serve` always dies", "test_a_signal_ends_it_in_order"),
    "3.4": defect(
        "`task` drops the tools and knowledge of the job", "test_a_command_that_is_absent_is_refused_by_name", JOBS
    ),
    "3.5": defect(
        "`ui` always fails", "test_a_command_that_is_absent_is_refused_by_name", root("⟦ui: {type: textual}")
    ),
    "3.6": defect(
        "nothing validates a manifest or lists its triggers",
        "test_a_manifest_can_be_validated_and_its_triggers_listed",
    ),
    "3.7": defect(
        "nothing fires a trigger by hand or shows what happened",
        "test_a_trigger_is_fired_by_hand_and_its_event_is_on_record",
    ),
    "3.8": defect(
        "exit codes are 0 and 1 only",
        "test_run_asks_the_agent_it_was_told",
        "test_a_manifest_can_be_validated_and_its_triggers_listed",
    ),
}

UNUSED = {
    "1.root": defect(
        "keys of the root that do nothing, or that stand elsewhere here",
        root("⟦INHERIT: base.yml\n⟦responses: {}\n⟦observability: {}\n⟦conversion: {}\n⟦prompts: {}\n⟦resources: {}"),
    ),
    "1.agent": defect(
        "keys of an agent that do nothing, or that mean something else here",
        agent("⟦user_prompts: [x], ⟦result_tool_name: x, ⟦end_strategy: early, ⟦avatar: x.png, ⟦debug: true"),
        agent(
            "⟦provider: human, ⟦inherits: b, ⟦result_type: x, ⟦result_retries: 2, ⟦system_prompts: [x], ⟦workers: [b]"
        ),
        agent(
            "⟦library_system_prompts: [x], ⟦input_provider: x, ⟦config_file_path: x, ⟦requires_tool_confirmation: never"
        ),
    ),
    "1.provider": defect(
        "`allow_text_fallback`, `validation_enabled` and the rest of a provider do nothing",
        Absent(
            "agents:\n  a: {model: {type: litellm, name: x/y, ⟦allow_text_fallback: true, ⟦validation_enabled: true}}\n"
        ),
    ),
    "1.tool": defect(
        "`requires_capability`, `cache_enabled` and `priority` of a tool do nothing",
        agent('tools: [{type: function, function: "html:escape", ⟦requires_capability: x, ⟦cache_enabled: true}]'),
        agent('tools: [{type: function, function: "html:escape", ⟦priority: 1, ⟦enabled: true, ⟦metadata: {}}]'),
    ),
    "1.knowledge": defect(
        "`knowledge` of a trigger and `convert_to_markdown` do nothing",
        trigger(f"{FILE}, ⟦knowledge: [a.md]"),
        agent('knowledge: [{type: text, content: "x", ⟦convert_to_markdown: true}]'),
    ),
    "1.team": defect(
        "`mcp_servers` of a team do nothing",
        Absent("agents:\n  a: {model: demo}\nteams:\n  t: {members: [a], ⟦mcp_servers: [x], ⟦shared_prompt: x}\n"),
    ),
    "1.queue": defect(
        "queues of connections hold one message, by default the last",
        connection("⟦queued: true, ⟦queue_strategy: latest, ⟦wait_for_completion: true"),
        "runtime/test_nodes.py::test_a_slow_consumer_holds_its_source_back",
    ),
    "1.session": defect("`max_messages` of a session does nothing", agent("session: ⟦{max_messages: 5}")),
}
