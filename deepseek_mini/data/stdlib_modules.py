"""The names of the standard-library modules that make the offline code corpus.

Every one exists in Python 3.11, 3.12 and 3.13 as source of at least 1,500 bytes.
Left out: tests, tables (``html.entities``), what is specific to Windows, AIX or
macOS, what Debian packages apart (``tkinter``, ``venv``), and what 3.13 removed
(``cgi``, ``crypt``, ``imghdr``, ``telnetlib`` ...). The text of a module differs
between Python versions; the list does not.
"""

_TOP = """
    _collections_abc _compression _markupbase _py_abc _pyio _strptime _threading_local
    _weakrefset abc argparse ast base64 bdb bisect bz2 cProfile calendar cmd code
    codecs codeop collections colorsys compileall configparser contextlib copy copyreg
    csv ctypes curses dataclasses dbm difflib dis email enum filecmp fileinput fnmatch
    fractions ftplib functools genericpath getopt getpass gettext glob graphlib gzip
    hashlib heapq hmac html http imaplib importlib inspect io ipaddress json linecache
    logging lzma mailbox modulefinder netrc ntpath numbers operator optparse os pdb
    pickle pkgutil platform plistlib poplib posixpath pprint profile pstats pty
    py_compile pyclbr queue quopri random re reprlib rlcompleter runpy sched secrets
    selectors shelve shlex shutil signal socket socketserver sqlite3 ssl stat
    statistics string subprocess tabnanny tarfile tempfile textwrap threading timeit
    tokenize trace traceback tracemalloc types typing uuid warnings wave weakref
    webbrowser zipimport
"""

_INSIDE = {
    "asyncio": """
        base_events base_futures base_subprocess base_tasks coroutines events
        exceptions format_helpers futures locks protocols queues runners
        selector_events sslproto staggered streams subprocess taskgroups tasks
        timeouts transports trsock unix_events
    """,
    "concurrent": "futures futures._base futures.process futures.thread",
    "ctypes": "_endian util wintypes",
    "curses": "ascii has_key textpad",
    "dbm": "dumb",
    "email": """
        _encoded_words _header_value_parser _parseaddr _policybase base64mime
        contentmanager encoders errors feedparser generator header headerregistry
        iterators message mime.audio mime.image mime.multipart parser policy
        quoprimime utils
    """,
    "html": "parser",
    "http": "client cookiejar cookies server",
    "importlib": """
        abc metadata metadata._adapters metadata._functools metadata._itertools
        metadata._text resources._adapters resources._common resources.abc
        resources.readers resources.simple util
    """,
    "json": "decoder encoder scanner tool",
    "logging": "config handlers",
    "multiprocessing": """
        connection context dummy dummy.connection forkserver heap managers pool
        popen_fork popen_forkserver popen_spawn_posix process queues reduction
        resource_sharer resource_tracker shared_memory sharedctypes spawn synchronize
        util
    """,
    "re": "_compiler _parser",
    "sqlite3": "dbapi2 dump",
    "tomllib": "_parser _re",
    "urllib": "error parse request response robotparser",
    "wsgiref": "handlers headers simple_server types util validate",
    "xml": """
        dom dom.domreg dom.expatbuilder dom.minicompat dom.minidom dom.pulldom
        dom.xmlbuilder etree.ElementInclude etree.ElementPath etree.ElementTree etree
        sax sax._exceptions sax.expatreader sax.handler sax.saxutils sax.xmlreader
    """,
    "xmlrpc": "client server",
    "zoneinfo": "_common _tzpath _zoneinfo",
}

STDLIB_MODULES = tuple(
    sorted(
        _TOP.split()
        + [
            f"{package}.{name}"
            for package in _INSIDE
            for name in _INSIDE[package].split()
        ]
    )
)
