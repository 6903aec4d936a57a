"""Manifests of any length through a running server, spread over a Ray cluster; `pip install '.[bulk]'`.

`job` is what runs on the cluster, `parts` what it writes. The server does the recognition: workers read
files, keep a bounded number in flight and write results, so they need no GPU.
"""
