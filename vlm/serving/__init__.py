"""What people and programs call: the page, its endpoints, and the model behind them.

the page               page, conversation_tab, search_tab, settings_panel, messages, markdown, thumbs
what its events do     questions, keeping, voting, looking, searches, browser_copy
the line, the limits   serving, gate, ahead, switch, allowance, limits, measures
before every route     launch, guard, body, accounts, callers, environment
the endpoints          endpoints, search_endpoints, arguments, tools, status_routes, openai/
the files              uploads, received, sent_files, assets
"""
