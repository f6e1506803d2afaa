#!/bin/sh
# Installs the YAML language server that test_language_server.py talks to, into an ignored folder beside this file.
# Needs node (20 or later) and npm. An argument picks another version; 1.25.0 and 2.0.0 pass.
set -eu
cd "$(dirname "$0")"
npm install --prefix .language-server --loglevel=error --no-audit --no-fund --no-save "yaml-language-server@${1:-2.0.0}"
