from twisted.cred.checkers import AllowAnonymousAccess, InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.portal import Portal
from twisted.internet import reactor
from twisted.protocols.ftp import FTPFactory, FTPRealm
from twisted.python.filepath import FilePath

import common


class Realm(FTPRealm):
    def getHomeDirectory(self, avatarId):
        return FilePath(common.root)


accounts = InMemoryUsernamePasswordDatabaseDontUse()
accounts.addUser(common.account, common.password)
factory = FTPFactory(Portal(Realm(common.root), [AllowAnonymousAccess(), accounts]))
factory.timeOut = common.idle
reactor.listenTCP(common.port, factory, interface="127.0.0.1")
common.become_nobody()
reactor.run()
