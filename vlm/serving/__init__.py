"""What people and programs call: the page, its endpoints, and the model behind them.

the page               page, tabs, conversation_tab, search_tab, settings_panel, messages, markdown, thumbs, translations
what its events do     questions, keeping, voting, looking, searches, browser_copy; events and plain_errors for all of them
the line, the limits   serving, gate, ahead, switch, shared_searcher, zero_gpu, allowance, limits, measures
before every route     gradio_import, launch, guard, body, accounts, callers, environment
the endpoints          endpoints, search_endpoints, arguments, tools, status_routes, openai/
the files              uploads, received, sent_files, assets
"""
