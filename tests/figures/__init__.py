"""The figures of docs/performance.md: daemons are started, and proxyd-loadtest measures them.

script/figures runs it. `rows` says which figures there are, `stage` starts what they need,
`measurements` takes them, `record` keeps them and makes the table.
"""
