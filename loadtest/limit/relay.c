/* The barest relay: what a process between a client and its daemon adds to a call at least.
 *
 *     relay PATH DAEMON             a UNIX socket, at a path of its own
 *     relay CERTIFICATE DAEMON      built with -DWITH_TLS: TLS at a port of 127.0.0.1
 *
 * DAEMON is the path of a UNIX socket, which each client is connected to anew. Nothing of what
 * passes is looked at: no frames, no authentication, no limits. A turn takes one receive and one
 * send, as few as there can be. It prints the port (0 without TLS) in one line when it listens,
 * and ends when its standard input does.
 *
 * With TLS the certificate and its key, both in one file, are the client's as well: nobody else is
 * let in. Behind the handshake goes the byte by which libvirt's servers let a client in.
 */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#ifdef WITH_TLS
#include <openssl/err.h>
#include <openssl/ssl.h>
#endif

enum { ROOM = 65536, EVENTS = 64, ENDED = 0, NOTHING = -1, BROKEN = -2 };

/* One of the two sockets of a session. */
struct end {
    int fd; /* -1 once it is closed */
    struct end *other;
    struct end *next;   /* among those that are to be freed */
    int ended;          /* nothing more comes from here */
    unsigned watched;   /* for what, by epoll */
    size_t first, past; /* of `held`: what came for this end, and it has not taken */
#ifdef WITH_TLS
    SSL *tls;
    int in;
#endif
    char held[ROOM];
};

static int epoll;
static struct end *closed; /* of this turn: an event of the same turn may still name them */
static struct sockaddr_un daemon_address;
static char scratch[ROOM];

static void fail(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, errno ? strerror(errno) : "of no use");
    exit(1);
}

static ssize_t why_not(void)
{
    return errno == EAGAIN || errno == EINTR ? NOTHING : BROKEN;
}

#ifdef WITH_TLS
static SSL_CTX *context;

static ssize_t why_no_tls(struct end *end, int result)
{
    /* Room is there for all that a handshake writes. */
    int error = SSL_get_error(end->tls, result);
    ERR_clear_error();
    if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE)
        return NOTHING;
    return error == SSL_ERROR_ZERO_RETURN ? ENDED : BROKEN;
}

/* NOTHING, too, when that was all of the handshake: the client waits for our byte first. */
static ssize_t let_in(struct end *end)
{
    int result = SSL_accept(end->tls);
    if (result != 1)
        return why_no_tls(end, result);
    end->in = 1;
    return SSL_write(end->tls, "\1", 1) == 1 ? NOTHING : BROKEN;
}
#endif

static ssize_t take(struct end *end, char *room, size_t size)
{
    ssize_t got;
#ifdef WITH_TLS
    if (end->tls && !end->in)
        return let_in(end);
    if (end->tls)
        return (got = SSL_read(end->tls, room, (int)size)) > 0 ? got : why_no_tls(end, (int)got);
#endif
    got = recv(end->fd, room, size, 0);
    return got >= 0 ? got : why_not();
}

static ssize_t give(struct end *end, const char *bytes, size_t count)
{
    ssize_t sent;
#ifdef WITH_TLS
    if (end->tls) {
        sent = SSL_write(end->tls, bytes, (int)count);
        if (sent > 0)
            return sent;
        /* Of who said that nothing follows, OpenSSL says so of a write that failed, too. */
        return why_no_tls(end, (int)sent) == NOTHING ? NOTHING : BROKEN;
    }
#endif
    sent = send(end->fd, bytes, count, MSG_NOSIGNAL);
    return sent >= 0 ? sent : why_not();
}

static int holds_more(struct end *end)
{
#ifdef WITH_TLS
    return end->tls && SSL_has_pending(end->tls);
#else
    (void)end;
    return 0;
#endif
}

static void close_both(struct end *one)
{
    struct end *ends[] = {one, one->other};
    for (int at = 0; at < 2; at++) {
#ifdef WITH_TLS
        SSL_free(ends[at]->tls);
        ends[at]->tls = NULL;
#endif
        close(ends[at]->fd);
        ends[at]->fd = -1;
        ends[at]->next = closed;
        closed = ends[at];
    }
}

/* Input while the other end takes what comes, output while it has something to take. An end that is
 * watched for neither is no longer in epoll, which would report that it hung up again and again. */
static void watch(struct end *end)
{
    int stalls = end->other->past > end->other->first;
    unsigned wanted = (end->ended || stalls ? 0 : EPOLLIN) | (end->past > end->first ? EPOLLOUT : 0);
    if (wanted == end->watched)
        return;
    struct epoll_event event = {.events = wanted, .data.ptr = end};
    int how = !end->watched ? EPOLL_CTL_ADD : wanted ? EPOLL_CTL_MOD : EPOLL_CTL_DEL;
    if (epoll_ctl(epoll, how, end->fd, &event) < 0)
        fail("epoll_ctl");
    end->watched = wanted;
}

static void nothing_follows(struct end *end)
{
#ifdef WITH_TLS
    if (end->tls && end->in)
        SSL_shutdown(end->tls);
#endif
    shutdown(end->fd, SHUT_WR);
}

/* One turn of one direction. False when the session is over. */
static int pump(struct end *from)
{
    struct end *to = from->other;
    do {
        ssize_t got = take(from, scratch, ROOM);
        if (got == NOTHING)
            return 1;
        if (got == BROKEN)
            return 0;
        if (got == ENDED) {
            from->ended = 1;
            nothing_follows(to); /* which has taken all that came before */
            return !to->ended;
        }
        ssize_t sent = give(to, scratch, (size_t)got);
        if (sent == got)
            continue;
        if (sent == BROKEN)
            return 0;
        to->first = 0;
        to->past = (size_t)(got - (sent > 0 ? sent : 0));
        memcpy(to->held, scratch + (got - (ssize_t)to->past), to->past);
        return 1;
    } while (holds_more(from));
    return 1;
}

static int flush(struct end *to)
{
    ssize_t sent = give(to, to->held + to->first, to->past - to->first);
    if (sent > 0)
        to->first += (size_t)sent;
    if (sent == BROKEN)
        return 0;
    if (to->past > to->first || to->other->ended || !holds_more(to->other))
        return 1;
    return pump(to->other);
}

static void serve(struct end *end, unsigned events)
{
    if (end->fd < 0)
        return;
    int goes_on = 1;
    if (end->past > end->first && events & (EPOLLOUT | EPOLLHUP | EPOLLERR))
        goes_on = flush(end);
    if (goes_on && end->watched & EPOLLIN && events & (EPOLLIN | EPOLLHUP | EPOLLERR))
        goes_on = pump(end);
    if (!goes_on) {
        close_both(end);
        return;
    }
    watch(end);
    watch(end->other);
}

static struct end *made_end(int fd)
{
    struct end *made = calloc(1, sizeof *made);
    if (!made)
        fail("memory");
    made->fd = fd;
    return made;
}

static void meet(int listener)
{
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0)
        return;
    struct end *client = made_end(fd);
    struct end *backend = made_end(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    client->other = backend;
    backend->other = client;
    int met = !connect(backend->fd, (struct sockaddr *)&daemon_address, sizeof daemon_address) &&
              !fcntl(backend->fd, F_SETFL, O_NONBLOCK);
#ifdef WITH_TLS
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    client->tls = SSL_new(context);
    met = met && client->tls && SSL_set_fd(client->tls, fd) == 1;
    if (met)
        SSL_set_accept_state(client->tls);
#endif
    if (met) {
        watch(client);
        watch(backend);
    } else {
        close_both(client);
    }
}

static void name(struct sockaddr_un *address, const char *path)
{
    address->sun_family = AF_UNIX;
    if (strlen(path) >= sizeof address->sun_path)
        fail(path);
    strcpy(address->sun_path, path);
}

#ifdef WITH_TLS
static int listening(const char *certificate, unsigned *port)
{
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof here;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(listener, (struct sockaddr *)&here, size) || listen(listener, EVENTS) ||
        getsockname(listener, (struct sockaddr *)&here, &size))
        fail("127.0.0.1");
    *port = ntohs(here.sin_port);
    context = SSL_CTX_new(TLS_server_method());
    errno = 0;
    if (!context || SSL_CTX_use_certificate_chain_file(context, certificate) != 1 ||
        SSL_CTX_use_PrivateKey_file(context, certificate, SSL_FILETYPE_PEM) != 1 ||
        SSL_CTX_load_verify_locations(context, certificate, NULL) != 1)
        fail(certificate);
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    SSL_CTX_set_options(context, SSL_OP_IGNORE_UNEXPECTED_EOF | SSL_OP_NO_RENEGOTIATION);
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_read_ahead(context, 1); /* one receive for a record, not two */
    signal(SIGPIPE, SIG_IGN);           /* OpenSSL does not say MSG_NOSIGNAL */
    return listener;
}
#else
static int listening(const char *path, unsigned *port)
{
    struct sockaddr_un here;
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    name(&here, path);
    *port = 0;
    if (bind(listener, (struct sockaddr *)&here, sizeof here) || listen(listener, EVENTS))
        fail(path);
    return listener;
}
#endif

int main(int count, char **words)
{
    unsigned port;
    struct epoll_event events[EVENTS];
    if (count != 3)
        fail("relay PATH|CERTIFICATE DAEMON");
    name(&daemon_address, words[2]);
    int listener = listening(words[1], &port);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event input = {.events = EPOLLIN, .data.ptr = NULL};
    struct epoll_event newcomer = {.events = EPOLLIN, .data.ptr = &listener};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, 0, &input) ||
        epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &newcomer))
        fail("epoll_ctl");
    printf("%u\n", port);
    fflush(stdout);
    for (;;) {
        int ready = epoll_wait(epoll, events, EVENTS, -1);
        for (int at = 0; at < ready; at++) {
            if (!events[at].data.ptr)
                return 0; /* whoever started it is gone, or has seen enough */
            if (events[at].data.ptr == &listener)
                meet(listener);
            else
                serve(events[at].data.ptr, events[at].events);
        }
        for (struct end *next; closed; closed = next) {
            next = closed->next;
            free(closed);
        }
    }
}
