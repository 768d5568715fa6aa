from pyftpdlib.authorizers import DummyAuthorizer
from pyftpdlib.handlers import FTPHandler
from pyftpdlib.servers import FTPServer

import common

authorizer = DummyAuthorizer()
authorizer.add_anonymous(common.root, perm="elradfmwMT")
authorizer.add_user(common.account, common.password, common.root, perm="elradfmwMT")
FTPHandler.authorizer = authorizer
FTPHandler.timeout = common.idle
server = FTPServer(("127.0.0.1", common.port), FTPHandler)
common.become_nobody()
server.serve_forever()
